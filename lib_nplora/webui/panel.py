"""The panel: Gradio components that are alike in Gradio 3.41 and 4.40, as the hosts wrap them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules.ui_components import InputAccordion

from . import by_block_line, inspect_fold, method_parts, pair_parts, save_fold, tag_line, verdict_line
from .fields import PanelState
from .parts import Parts


def build(tab: str, start: PanelState) -> dict[str, Any]:
    """Make the panel of a tab, inside whatever Gradio block is open.

    Returns its components by the names of the panel's values, in their order.
    """
    parts = Parts(tab, start)
    with InputAccordion(start["enabled"], label="NP-LoRA", elem_id=f"{tab}_nplora") as parts.made["enabled"]:
        pair_parts.make_names(parts)
        method_parts.make_method(parts)
        method_parts.make_strengths(parts)
        pair_parts.make_weights(parts)
        tag_line.make(parts)
        verdict_line.make(parts)
        with gr.Accordion("More", open=False, **parts.at("more")):
            method_parts.make_more(parts)
            pair_parts.make_lines(parts)
            by_block_line.make_known(parts)
        inspect_fold.make(parts)
        save_fold.make(parts)
        pair_parts.make_taken(parts)
    for part in (tag_line, verdict_line, method_parts, pair_parts, inspect_fold, save_fold):
        part.join(parts)
    by_block_line.follow_model(parts, [name for name in parts.held if name.endswith("_by_block")])
    # Their start is a setting of ours, or none: the host shall not keep the first one that it sees as its own default.
    kept = {"enabled", *pair_parts.of_both_roles(), "te", "refresh", "swap", "insert", "role_set", "inspect", "save"}
    for name in parts.made.keys() - kept:
        parts[name].do_not_save_to_config = True
    return parts.held
