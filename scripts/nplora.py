"""The only file that the WebUI runs."""

from lib_nplora.webui.callbacks import register
from lib_nplora.webui.script import NploraScript

__all__ = ["NploraScript"]

register()
