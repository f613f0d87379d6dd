"""Unbiased CKA of all pairs in PyTorch: `pairs` as published code does (three HSIC a pair, from features), `grams` with each
layer's Gram and each layer's own HSIC computed once. Prints seconds and the matrix as JSON.

    torch_cka_pairs.py FEATURES.safetensors REPEATS pairs|grams
"""

import json
import sys
import time

import torch
from safetensors.torch import load_file


def hsic(k, l):
    m = len(k)
    k, l = k - torch.diag(torch.diag(k)), l - torch.diag(torch.diag(l))
    one = torch.ones(m, 1)
    product = k @ l
    return (torch.trace(product) + (one.T @ k @ one) * (one.T @ l @ one) / ((m - 1) * (m - 2)) - 2 * one.T @ product @ one / (m - 2)) / (m * (m - 3))


def pairs(features):
    count = len(features)
    out = torch.eye(count)
    for i in range(count):
        for j in range(i + 1, count):
            k, l = features[i] @ features[i].T, features[j] @ features[j].T
            out[i, j] = out[j, i] = hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
    return out


def grams(features):
    count = len(features)
    k = [x @ x.T for x in features]
    own = [hsic(a, a) for a in k]
    out = torch.eye(count)
    for i in range(count):
        for j in range(i + 1, count):
            out[i, j] = out[j, i] = hsic(k[i], k[j]) / (own[i] * own[j]).sqrt()
    return out


tensors = load_file(sys.argv[1])
layers = [tensors[f"layer.{i}"] for i in range(len(tensors))]
seconds = []
with torch.no_grad():
    for repeat in range(int(sys.argv[2]) + 1):
        start = time.perf_counter()
        matrix = {"pairs": pairs, "grams": grams}[sys.argv[3]](layers)
        if repeat > 0:
            seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds, "cka": matrix.tolist()}))
