"""The web console: pages over the public REST interface, with the viewer's own token. Knows nothing of the service.

`app` stands before the interface and tells their requests apart; `login` and `sessions` know who looks; `api` asks and
`live` listens; `page` and `layout` are what every page has; `components` what pages are made of; `pages` the pages.
NiceGUI is loaded when the first page is shown to somebody who is logged in, and not before.
"""
