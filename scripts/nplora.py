"""The only file that the WebUI runs."""

from lib_nplora.webui.callbacks import register

register()
