// What a registration of ggml gives by name.
#pragma once

#include "ggml-backend.h"

template <typename Function> Function procedure(ggml_backend_reg_t registration, const char * name) {
    return reinterpret_cast<Function>(ggml_backend_reg_get_proc_address(registration, name));
}

// The buffer types that a device has beside its own, in the order in which a model's loader offers weights to them, and null.
inline const ggml_backend_buffer_type_t * extra_buffer_types(ggml_backend_dev_t device) {
    static const ggml_backend_buffer_type_t none = nullptr;
    using ExtraTypes = ggml_backend_buffer_type_t * (*) (ggml_backend_dev_t);
    const auto extra = procedure<ExtraTypes>(ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts");
    return extra ? extra(device) : &none;
}
