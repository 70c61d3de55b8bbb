"""A handler: counts views, and keeps each visitor's last page."""

import shardmill


def on_click(record, ctx):
    page = record.json()["page"]
    ctx.counter_add("views")
    ctx.state_set("last_page", page.encode())


WitWorld = shardmill.handler(record=on_click)
