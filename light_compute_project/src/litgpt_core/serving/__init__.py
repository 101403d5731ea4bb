"""The HTTP server of scripts/serve.py and its web page. This file imports nothing."""
