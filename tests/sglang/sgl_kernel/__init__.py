"""Stands in for the CPU build of sgl-kernel, which the package index does not carry: the names that SGLang 0.5.23 imports on every CPU.

All of them belong to speculative decoding or to moving KV; everything else that a Qwen2 model with LoRA needs there is torch's.
"""


def _missing(*_, **__):
    raise NotImplementedError("this stand-in of sgl_kernel has no operations")


for _name in (
    "assign_draft_cache_locs_contiguous_cpu",
    "assign_extend_cache_locs_cpu",
    "assign_req_to_token_pool_cpu",
    "build_tree_kernel_efficient_cpu",
    "copy_all_layer_kv_cache_cpu",
    "fill_accept_out_cache_loc_cpu",
    "fill_bonus_tokens_cpu",
    "rotate_input_ids_cpu",
    "verify_tree_greedy_cpu",
):
    globals()[_name] = _missing


def _without_pinning():
    """SGLang's LoRA code asks for pinned memory on every device (lora/layers.py, lora/lora.py, lora/backend/torch_backend.py), and torch
    refuses that where there is no accelerator."""
    import functools

    import torch

    if torch.cuda.is_available():
        return

    def unpinned(make):
        @functools.wraps(make)
        def made(*args, pin_memory=False, **kwargs):
            return make(*args, **kwargs)

        return made

    for name in ("arange", "empty", "ones", "tensor", "zeros"):
        setattr(torch, name, unpinned(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda self, device=None: self


_without_pinning()
