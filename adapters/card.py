"""An adapter folder's manifest and model card: which base, which adapters below it, how it was trained."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from moltlm.data.errors import BadInput
from moltlm.data.io import fingerprint, read_json, sha256_file, write_json, write_text

MANIFEST = "moltlm.json"
MIXTURE = "mixture.json"
"""File beside the weights of a mixture of experts (`adapters.mixture`)."""


class Identified(Protocol):
    """A base by its digests (`adapters.base.Base`)."""

    @property
    def digest(self) -> str: ...

    @property
    def layers(self) -> str: ...


@dataclass(frozen=True)
class Manifest:
    """Attributes:
    base_digest: identifies the base's architecture and embeddings (`adapters.base.digest`).
    adapters_below: the adapters that were active and frozen below this one, lowest first, with their weights' hashes.
    training: the settings and results of the training.
    config_sha256: of the files that say how the weights are applied, such as their scale; empty for a whole model.
    base_layers: identifies the base's other weights (`adapters.base.layers_digest`); empty if that is unknown.
    """

    name: str
    base: str
    base_digest: str
    precision: str
    adapters_below: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    config_sha256: str = ""
    base_layers: str = ""


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest and a model card beside the weights, and delete the pickle that trainers leave.

    Returns:
        The manifest with the hash of the weights.
    """
    (folder / "training_args.bin").unlink(missing_ok=True)
    hashes = {"weights_sha256": weights_hash(folder), "config_sha256": config_hash(folder)}
    full = Manifest(**{**asdict(manifest), **hashes})
    write_json(folder / MANIFEST, asdict(full))
    write_text(folder / "README.md", _card(full, (folder / MIXTURE).is_file()))
    return full


def read(folder: Path) -> Manifest:
    """The manifest of an adapter folder.

    Raises:
        BadInput: The folder has no manifest, or its weights or their configuration have changed since it was written.
    """
    if not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder} holds no adapter trained by moltlm.", "Look for one: molt registry list CONFIG")
    try:
        manifest = Manifest(**read_json(folder / MANIFEST))
    except (TypeError, BadInput) as error:
        raise BadInput(
            f"{folder / MANIFEST} is damaged or of another version ({error}).",
            f"Put the former file back, or train again: rm -r {shlex.quote(str(folder))}",
        ) from None
    if manifest.config_sha256 and config_hash(folder) != manifest.config_sha256:
        raise BadInput(
            f"adapter_config.json in {folder} is not what was written there: the weights would be applied in another "
            "way than they were trained, for example at another scale.",
            f"Put the former file back, or train again: remove {folder} and rerun the command that wrote it.",
        )
    if weights_hash(folder) != manifest.weights_sha256:
        raise BadInput(
            f"The weights in {folder} are not those that were written there.",
            f"Train them again: remove {folder} and rerun the command that wrote it.",
        )
    return manifest


def check_base(folder: Path, base: Identified) -> Manifest:
    """The manifest of an adapter for this base.

    Raises:
        BadInput: The adapter was trained on another base.
    """
    manifest = read(folder)
    other_layers = manifest.base_layers and base.layers and manifest.base_layers != base.layers
    if manifest.base_digest == base.digest and other_layers:
        raise BadInput(
            f"The adapter in {folder} was trained on other layers than those of {manifest.base} as it is now: the "
            "embeddings are the same, but other weights have changed.",
            "Restore the model's files (model.id, model.revision), or train the adapter again on this base.",
        )
    if manifest.base_digest != base.digest:
        raise BadInput(
            f"The adapter in {folder} was trained on another base, or on other files of this one ({manifest.base}).",
            f"Set model.id={manifest.base}; if it is set, put that model's former files back, or train again.",
        )
    return manifest


def config_hash(folder: Path) -> str:
    """The SHA-256 of what says how the weights are applied; empty for a whole model."""
    files = [folder / name for name in ("adapter_config.json", MIXTURE) if (folder / name).is_file()]
    return fingerprint([[file.name, sha256_file(file)] for file in files]) if files else ""


def weights_hash(folder: Path) -> str:
    """The SHA-256 of the adapter's weights, or of the model's after full fine-tuning."""
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        weights = folder / "model.safetensors"  # full fine-tuning
    if not weights.is_file():
        raise BadInput(f"{folder} has no weights (adapter_model.safetensors).", "Train the adapter again.")
    return sha256_file(weights)


def _card(manifest: Manifest, mixed: bool) -> str:
    below = ", ".join(manifest.adapters_below) or "none"
    rows = "\n".join(f"| {key} | {value} |" for key, value in manifest.training.items())
    kind = "A mixture of LoRA experts, which only moltlm can load," if mixed else "A LoRA adapter"
    return (
        f"---\nbase_model: {manifest.base}\nlibrary_name: peft\ntags: [lora, moltlm]\n---\n\n"
        f"# {manifest.name}\n\n{kind} for `{manifest.base}` ({manifest.precision} base, digest "
        f"`{manifest.base_digest}`), trained with moltlm. Frozen adapters below it during training: {below}.\n\n"
        f"| setting | value |\n|---|---|\n{rows}\n" + ("" if mixed else _loading(manifest.base))
    )


def _loading(base: str) -> str:
    return (
        "\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{base}")\n'
        'model = PeftModel.from_pretrained(model, "this folder")\n```\n'
    )
