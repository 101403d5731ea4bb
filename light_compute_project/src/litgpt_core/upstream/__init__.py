"""LitGPT's own files: proved unchanged, brought in by one command, and watched for what our code needs of them."""
