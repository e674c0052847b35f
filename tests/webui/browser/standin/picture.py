"""`p`: what an extension sees of a picture that is being made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .infotext import written


@dataclass(eq=False)
class Picture:
    """With hires fix if `hr_prompt` is given; an empty one means the first pass's."""

    prompt: str
    negative_prompt: str
    scripts: Any
    script_args: tuple[Any, ...]
    hr_prompt: str | None = None
    batch_size: int = 2
    n_iter: int = 1
    styles: list[str] = field(default_factory=list)
    extra_generation_params: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, int] = field(default_factory=dict)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    @property
    def enable_hr(self) -> bool:
        return self.hr_prompt is not None

    def setup_prompts(self) -> None:
        count = self.batch_size * self.n_iter
        self.all_prompts = [self.prompt] * count
        self.all_negative_prompts = [self.negative_prompt] * count
        self.main_prompt, self.main_negative_prompt = self.prompt, self.negative_prompt
        if self.enable_hr:
            self.all_hr_prompts = [self.hr_prompt or self.prompt] * count

    def make(self, extra_networks: Any) -> dict[str, Any]:
        """Go the hosts' way as far as the model's weights. Returns what the page shows."""
        self.scripts.run("before_process", self)
        self.setup_prompts()
        self.scripts.run("process", self)
        hr_prompts = list(self.all_hr_prompts) if self.enable_hr else []
        with torch.no_grad():
            for prompts in filter(None, (self.all_prompts, hr_prompts)):
                _, data = extra_networks.parse_prompts(prompts)
                extra_networks.activate(self, data)
        params = {"Steps": 20, "Sampler": "Euler", "Seed": 1, "Size": "512x512", **self.extra_generation_params}
        if hr_prompts and hr_prompts[0] != self.all_prompts[0]:
            params["Hires prompt"] = hr_prompts[0]
        return {
            "prompts": list(self.all_prompts),
            "hr_prompts": hr_prompts,
            "comments": list(self.comments),
            "infotext": written(self.main_prompt, self.main_negative_prompt, params),
        }
