"""The pages of the console: HTML made of the state."""

from reconciler.manager.console.pages.key import KEY
from reconciler.manager.console.pages.keys import KEYS
from reconciler.manager.console.pages.now import NOW
from reconciler.manager.console.pages.page import Page
from reconciler.manager.console.pages.process import PROCESS

__all__ = ["PAGES", "Page"]

PAGES = (NOW, KEYS, PROCESS, KEY)
