// BitNet b1.58 for libllama, which does not know it.
#pragma once

#include "llama.h"

#include <string>

namespace bitnet {

// Whether the value of `general.architecture` is one that is loaded here and not by libllama.
bool is_architecture(const std::string & name);

// What llama_model_load_from_file does, for a file of such an architecture. NULL when the load was cancelled; throws.
llama_model * load(const std::string & path, const llama_model_params & params);

// Whether the model's graph has one node for products that share an input, with ternary kernels.
bool is_fused(const llama_model * model);

// What llama_adapter_lora_init does, for adapters that name such an architecture too; the file was checked. NULL on failure; throws.
llama_adapter_lora * load_adapter(llama_model * model, const char * path);

} // namespace bitnet
