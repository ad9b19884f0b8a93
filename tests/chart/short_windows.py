"""`coalmine` whose windows of the run length take some seconds instead of a quarter of an hour: a test sees one end."""

import coalmine_operator.analysis.monitored
from coalmine_operator.cli.main import main

coalmine_operator.analysis.monitored.WINDOW = 5.0

if __name__ == "__main__":
    main()
