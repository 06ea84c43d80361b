"""Templates: a user endpoint's configuration, made of an administrator's text and a submitter's values.

Loaded by the launcher and by commands; the manager itself renders nothing.
"""

from farcall.endpoint.templates.rendering import TIME_LIMIT_S, TemplateRefused, known_options, render

__all__ = ["TIME_LIMIT_S", "TemplateRefused", "known_options", "render"]
