"""llama.cpp through the low-level API of llama-cpp-python: load, quantize, logits, greedy decoding, timing."""

import ctypes
import time

import llama_cpp as lc
import numpy as np

F32, F16, Q8_0 = 0, 1, 8
FTYPE = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}

_QUIET = lc.llama_log_callback(lambda level, text, data: print(text.decode(), end="") if level == 4 else None)  # 4 is error
lc.llama_log_set(_QUIET, ctypes.c_void_p(0))
lc.llama_backend_init()


def quantize(source: str, target: str, ftype: str, threads: int = 2, pure: bool = False):
    """Quantizes a file with llama.cpp's own quantizer."""
    params = lc.llama_model_quantize_default_params()
    params.nthread = threads
    params.ftype = FTYPE[ftype]
    params.pure = pure
    params.allow_requantize = ftype == "F32"  # back to floats
    if lc.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp could not quantize {source} to {ftype}")


class Model:
    """A model and one context. KV cache of F32 by default, so that only weights and activations are rounded."""

    def __init__(self, path, n_ctx=512, threads=1, kv=F32, n_seq=1, n_batch=512, flash=0, lora=None):
        params = lc.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = lc.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError(f"llama.cpp could not load {path}")
        self.n_batch = n_batch
        self.vocab = lc.llama_model_get_vocab(self.model)
        self.n_vocab = lc.llama_vocab_n_tokens(self.vocab)
        c = lc.llama_context_default_params()
        c.n_ctx, c.n_batch, c.n_ubatch, c.n_seq_max = n_ctx, n_batch, n_batch, n_seq
        c.n_threads = c.n_threads_batch = threads
        c.type_k = c.type_v = kv
        c.flash_attn_type = flash
        c.kv_unified = True
        self.ctx = lc.llama_init_from_model(self.model, c)
        if not self.ctx:
            raise RuntimeError("llama.cpp could not make a context")
        if lora is not None:
            self.adapter = lc.llama_adapter_lora_init(self.model, lora.encode())
            adapters = (lc.llama_adapter_lora_p_ctypes * 1)(self.adapter)
            scales = (ctypes.c_float * 1)(1.0)
            if not self.adapter or lc.llama_set_adapters_lora(self.ctx, adapters, 1, scales) != 0:
                raise RuntimeError(f"llama.cpp could not use the adapter {lora}")

    def close(self):
        lc.llama_free(self.ctx)
        lc.llama_model_free(self.model)

    def clear(self):
        lc.llama_memory_clear(lc.llama_get_memory(self.ctx), True)

    def decode(self, tokens, positions, sequences, want):
        """Runs one batch; `want[i]` asks for logits of token i. Returns [sum(want), V]."""
        n = len(tokens)
        batch = lc.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i in range(n):
            batch.token[i] = int(tokens[i])
            batch.pos[i] = int(positions[i])
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = int(sequences[i])
            batch.logits[i] = bool(want[i])
        status = lc.llama_decode(self.ctx, batch)
        rows = [
            np.ctypeslib.as_array(lc.llama_get_logits_ith(self.ctx, i), shape=(self.n_vocab,)).copy() for i in range(n) if want[i]
        ]
        lc.llama_batch_free(batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        return np.stack(rows) if rows else None

    def logits(self, tokens):
        """Logits [T, V] of a whole prompt in one batch."""
        self.clear()
        return self.decode(tokens, range(len(tokens)), [0] * len(tokens), [True] * len(tokens))

    def greedy(self, tokens, n):
        """`n` greedy tokens after a prompt, the logits they were taken from [n, V]."""
        self.clear()
        row = self.decode(tokens, range(len(tokens)), [0] * len(tokens), [i == len(tokens) - 1 for i in range(len(tokens))])[0]
        out, rows = [], []
        for i in range(n):
            rows.append(row)
            out.append(int(row.argmax()))
            row = self.decode([out[-1]], [len(tokens) + i], [0], [True])[0]
        return out, np.stack(rows)

    def tokenize(self, text, add_special=False):
        """Token ids; special tokens in the text are recognised."""
        data = text.encode()
        buffer = (ctypes.c_int32 * (len(data) + 16))()
        n = lc.llama_tokenize(self.vocab, data, len(data), buffer, len(buffer), add_special, True)
        if n < 0:
            raise RuntimeError("llama_tokenize failed")
        return list(buffer[:n])

    def time_prefill(self, tokens):
        """Seconds to run a prompt with logits of the last token."""
        self.clear()
        start = time.perf_counter()
        self.prefill(tokens)
        return time.perf_counter() - start

    def prefill(self, tokens):
        """Runs a prompt of sequence 0 in batches, with logits of the last token."""
        for first in range(0, len(tokens), self.n_batch):
            part = tokens[first : first + self.n_batch]
            at = range(first, first + len(part))
            self.decode(part, at, [0] * len(part), [i == len(tokens) - 1 for i in at])

    def time_decode(self, prompt, streams, steps):
        """Seconds for `steps` greedy steps of `streams` sequences in one batch, each after its own copy of the prompt."""
        self.clear()
        n = len(prompt)
        self.prefill(prompt)
        memory = lc.llama_get_memory(self.ctx)
        for s in range(1, streams):
            lc.llama_memory_seq_cp(memory, 0, s, -1, -1)
        tokens = [(7 * s + 1) % self.n_vocab for s in range(streams)]
        start = time.perf_counter()
        for i in range(steps):
            rows = self.decode(tokens, [n + i] * streams, range(streams), [True] * streams)
            tokens = rows.argmax(axis=1).tolist()
        return time.perf_counter() - start


def version():
    """Versions and the CPU features llama.cpp was built with."""
    return {"llama_cpp_python": lc.__version__, "system_info": lc.llama_print_system_info().decode().strip()}
