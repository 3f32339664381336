// Ternary weights as GGUF files store them.
#pragma once

#include "ggml-common.h"
#include "ggml-impl.h"
#include "ggml.h"

#include <cstdint>

namespace ternary {

// Weights in a block of the type; 0 for types that are not ternary.
inline int64_t block_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_TQ1_0:
        case GGML_TYPE_TQ2_0:
            return QK_K;
        case GGML_TYPE_Q2_0:
            return QK2_0;
        default:
            return 0;
    }
}

// Five digits of base 3 in a byte, as a fraction of 256 whose first digit is the most significant: multiplying by 3 brings
// the next digit above the point.
inline uint8_t ternary_digit(uint8_t byte, int digit) {
    constexpr uint8_t POWERS[] = {1, 3, 9, 27, 81};
    return static_cast<uint8_t>(static_cast<uint8_t>(byte * POWERS[digit]) * 3 >> 8);
}

inline void unpack(const block_tq1_0 & block, uint8_t * codes) {
    // 32 bytes and then 16 with five digits each, and 4 with four; the digits of one place lie together.
    const struct {
        const uint8_t * bytes;
        int count, digits;
    } parts[] = {{block.qs, 32, 5}, {block.qs + 32, 16, 5}, {block.qh, 4, 4}};
    for (const auto & part : parts) {
        for (int digit = 0; digit < part.digits; ++digit) {
            for (int i = 0; i < part.count; ++i) {
                *codes++ = ternary_digit(part.bytes[i], digit);
            }
        }
    }
}

inline void unpack(const block_tq2_0 & block, uint8_t * codes) {
    // Two groups of 32 bytes; the weights of one place of two bits lie together.
    for (int group = 0; group < 64; group += 32) {
        for (int place = 0; place < 4; ++place) {
            for (int i = 0; i < 32; ++i) {
                *codes++ = block.qs[group + i] >> (2 * place) & 3;
            }
        }
    }
}

inline void unpack(const block_q2_0 & block, uint8_t * codes) {
    for (int i = 0; i < QK2_0; ++i) {
        codes[i] = block.qs[i / 4] >> (2 * (i % 4)) & 3;
    }
}

template <typename Block>
void unpack_blocks(const void * stored, int64_t columns, int64_t size, uint8_t * codes, float * scales) {
    const Block * blocks = static_cast<const Block *>(stored);
    for (int64_t i = 0; i < columns / size; ++i) {
        unpack(blocks[i], codes + i * size);
        scales[i] = ggml_fp16_to_fp32(blocks[i].d);
    }
}

// One row: a byte for each code, a scale for each block.
inline void unpack_row(ggml_type type, const void * stored, int64_t columns, uint8_t * codes, float * scales) {
    const int64_t size = block_of(type);
    switch (type) {
        case GGML_TYPE_TQ1_0:
            return unpack_blocks<block_tq1_0>(stored, columns, size, codes, scales);
        case GGML_TYPE_TQ2_0:
            return unpack_blocks<block_tq2_0>(stored, columns, size, codes, scales);
        default:
            return unpack_blocks<block_q2_0>(stored, columns, size, codes, scales);
    }
}

} // namespace ternary
