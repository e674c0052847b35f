"""What the WebUI sees of us. Only ever imported inside one."""
