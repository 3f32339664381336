// The buffer type that ternary weights are repacked into when a model is loaded, and what multiplies with them.
//
// It plugs into ggml's CPU backend as its own repacked types do: an entry in the list of extra buffer types, asked for every
// node of a graph. Compiled once a tier, together with that tier's ggml-cpu, and renamed with it.

#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include "multiply.h"
#include "multiply_six_bit.h"

#include <atomic>

namespace ternary {
namespace {

// The threads that repack weights of a model that is being loaded; 0: it may not put any here. Models that did keep working when
// it changes.
std::atomic<int> packing_threads{0};

ggml_backend_buffer_type_t buffer_type();

bool is_packed(const ggml_tensor * tensor) {
    return tensor && tensor->buffer && tensor->buffer->buft == buffer_type();
}

struct ExtraBufferType : ggml::cpu::extra_buffer_type {
    bool supports_op(ggml_backend_dev_t, const ggml_tensor * node) override {
        if (node->op == GGML_OP_CUSTOM) {
            return is_packed(node->src[0]);
        }
        if (node->op != GGML_OP_MUL_MAT || !is_packed(node->src[0]) || !can_pack(node->src[0])) {
            return false;
        }
        // A model's loader asks with an empty buffer, and takes plain memory when the answer is no.
        if (node->src[0]->buffer->size == 0 && packing_threads == 0) {
            return false;
        }
        const ggml_tensor * input = node->src[1];
        const bool in_memory = !input->buffer || ggml_backend_buft_is_host(input->buffer->buft);
        return input->type == GGML_TYPE_F32 && input->nb[0] == sizeof(float) && in_memory;
    }

    ggml::cpu::tensor_traits * get_tensor_traits(const ggml_tensor * node) override {
        const bool ours = (node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_CUSTOM) && is_packed(node->src[0]);
        static TernaryTraits traits;
        static SixBitTraits six_bit;
        if (!ours) {
            return nullptr;
        }
        return is_six_bit(node->src[0]) ? static_cast<ggml::cpu::tensor_traits *>(&six_bit) : &traits;
    }
};

const char * name(ggml_backend_buffer_type_t) {
    return GL_TERNARY_BUFFER;
}

size_t alignment(ggml_backend_buffer_type_t) {
    return ALIGNMENT;
}

size_t allocation_size(ggml_backend_buffer_type_t, const ggml_tensor * tensor) {
    return can_pack(tensor) ? tensor_size(tensor) : ggml_nbytes(tensor);
}

void set_tensor(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor) && can_pack(tensor));
    const int threads = packing_threads;
    if (is_six_bit(tensor)) {
        pack_six_bit(tensor, data, threads);
    } else {
        pack(tensor, data, threads);
    }
}

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    ggml_backend_buffer_t buffer = ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
    if (buffer) {
        buffer->buft = type;
        buffer->iface.init_tensor = nullptr;
        buffer->iface.set_tensor = set_tensor;
        // The stored form is gone.
        buffer->iface.get_tensor = nullptr;
        buffer->iface.cpy_tensor = nullptr;
    }
    return buffer;
}

ggml_backend_buffer_type_t buffer_type() {
    static ExtraBufferType extra;
    static ggml_backend_buffer_type type = [] {
        ggml_backend_buffer_type type = {};
        type.iface.get_name = name;
        type.iface.alloc_buffer = allocate;
        type.iface.get_alignment = alignment;
        type.iface.get_alloc_size = allocation_size;
        type.device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
        type.context = static_cast<ggml::cpu::extra_buffer_type *>(&extra);
        return type;
    }();
    return &type;
}

} // namespace
} // namespace ternary

// The threads that repack the ternary weights of models that are loaded from now on into this tier's buffer; 0: they stay as ggml
// has them. To be called before the tier is registered for the first time: ggml copies the list of extra buffer types once.
extern "C" void gguf_loader_ternary(int threads) {
    static const bool listed = [] {
        auto & types = ggml_backend_cpu_get_extra_buffer_types();
        types.insert(types.begin(), ternary::buffer_type());
        return true;
    }();
    (void) listed;
    ternary::packing_threads = threads;
}
