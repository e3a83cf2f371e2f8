from markdown_it import MarkdownIt

RENDERER = MarkdownIt("commonmark").enable("table")


def handler(event, context):
    return {"html": RENDERER.render(event["text"])}
