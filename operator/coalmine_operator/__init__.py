"""The operator: decides weights, promotions and rollbacks, and makes the platform follow."""
