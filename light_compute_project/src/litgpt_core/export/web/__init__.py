"""A model as one HTML file that works from a double click, without a network: weights, tokenizer and engine inside.

content       what the page holds as data: settings, names and sizes of weights, tokenizer, chat format
definition    the tokenizer
conversation  the chat format
exporting     the page, written completely or not at all
checking      what its engine computes in node
static/       the engine and the page: JavaScript, HTML, CSS, written for this project, without any library
"""
