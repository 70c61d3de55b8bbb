"""Runs `lambda_handler` of lambda_function.py on Shardmill. Nothing here has to be changed."""

import shardmill
from lambda_function import lambda_handler

WitWorld = shardmill.handler(event=lambda_handler)
