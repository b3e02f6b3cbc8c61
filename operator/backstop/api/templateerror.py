"""What is wrong with a prompt's template, whichever engine it is for."""


class TemplateError(ValueError):
    """The template is not valid; the text says where and what to do."""
