"""Templates: a user endpoint's configuration, made of an administrator's text and a submitter's values."""

from farcall.endpoint.templates.render import RESERVED_NAMES, TemplateRefused, render

__all__ = ["RESERVED_NAMES", "TemplateRefused", "render"]
