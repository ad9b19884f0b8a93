"""What the peers are told. Each keeps connections to the model, and none writes a log of requests."""

from __future__ import annotations

from typing import Any

NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; tcp_nodelay on; client_max_body_size 64m;
  client_body_temp_path {folder}/{name}.b; proxy_temp_path {folder}/{name}.p; fastcgi_temp_path {folder}/{name}.f;
  uwsgi_temp_path {folder}/{name}.u; scgi_temp_path {folder}/{name}.s;
  {body}
}}
"""
# A static file can't be POSTed to; asked for again by error_page it is a GET.
NGINX_MODEL = """
  server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/json; open_file_cache max=10;
    location / {{ return 200 '{answer}'; }}
    location = {monitored_path} {{ return 200 '{monitored}'; }}
    location = /v2/models/tensor/infer {{ root {folder}; error_page 405 =200 /tensor.json; return 405; }}
    location = /tensor.json {{ root {folder}; }} }}"""
NGINX_PROXY = """
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection "";
    location / {{ proxy_pass http://model; client_body_buffer_size 128k; proxy_buffers 16 8k; }}
    location = /body {{ proxy_pass http://model; proxy_request_buffering off; }}
    location = /stream {{ proxy_pass http://model; proxy_buffering off; }} }}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  option http-no-delay
  http-reuse always
frontend in
  bind 127.0.0.1:{port} backlog 4096
  default_backend model
backend model
  server one 127.0.0.1:{upstream}
"""


def routing(upstream: int) -> dict[str, Any]:
    """Three revisions at one model, so that routing chooses and the model does not matter; the fallback is armed."""
    shares = {"a": (60, "stable", []), "b": (30, "canary", [upstream]), "c": (10, "fallback", [upstream])}
    return {
        "deployment": "d",
        "model": "m",
        "generation": 1,
        "revisions": [
            {"name": name, "version": name, "track": track, "weight": weight,
             "endpoints": [f"127.0.0.1:{port}" for port in ports]}
            for name, (weight, track, ports) in shares.items()
        ],
        "fallback": {"chain": ["a"]},
        # One threshold, as with a latency condition of a rollout.
        "observe": {"thresholds": [0.1]},
    }  # fmt: skip
