"""Greedy tokens per second with llama.cpp: GGUF PROMPT TOKENS THREADS -> one JSON line. The rival of a bench.

Takes whichever binding the interpreter has: llama-cpp-python (a native build) or xllamacpp (a wheel with one instruction set).
Exit code 77 without either.
"""

import json
import resource
import sys
import time

model, prompt, tokens, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
try:
    import llama_cpp

    llm = llama_cpp.Llama(model, n_ctx=1024, n_threads=threads, n_threads_batch=threads, verbose=False)
    ids = llm.tokenize(prompt.encode(), add_bos=False, special=False)
    llm.eval(ids)
    produced, started = [], 0.0
    for token in llm.generate(ids, top_k=1, temp=0.0):
        started = started or time.perf_counter()
        produced.append(token)
        if len(produced) > tokens:
            break
    rate, system = tokens / (time.perf_counter() - started), llama_cpp.llama_print_system_info().decode()
    text, version = llm.detokenize(produced[:tokens]).decode(errors="replace"), f"llama-cpp-python {llama_cpp.__version__}"
except ModuleNotFoundError:
    try:
        import xllamacpp
    except ModuleNotFoundError:
        sys.exit(77)
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup, params.n_gpu_layers = model, 1024, 1, True, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    request = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "top_k": 1, "ignore_eos": True, "cache_prompt": False}
    answer = server.handle_completions(request)
    answer = json.loads(answer) if isinstance(answer, str) else answer
    rate, text = answer["timings"]["predicted_per_second"], answer.get("content") or answer["choices"][0]["text"]
    system, version = str(xllamacpp.get_system_info()), f"xllamacpp {xllamacpp.__version__}"
print(json.dumps({"tokens_per_second": rate, "text": text, "system": system.strip(), "version": version,
                  "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
