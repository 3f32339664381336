// The graph of BitNet b1.58 2B-4T (S. Ma et al.: BitNet b1.58 2B4T Technical Report, 2025, section 2), with libllama's loader,
// vocabulary, KV cache and contexts.
//
// libllama's own `bitnet` architecture is the older model: the same tensors, and SiLU where this one has a squared ReLU. So
// the class below inherits its tensors and replaces the graph. Files of this model call the architecture `bitnet-b1.58` or
// `bitnet-25`, and their keys begin so; libllama looks for keys that begin with `bitnet`, so they are renamed in memory.
//
// Where the weights lie in the ternary buffer, products that share an input are one node each (operation.h). On any other
// buffer, and for a context with LoRA adapters, the graph has libllama's own nodes.

#include "architecture.h"

#include "kernels/operation.h"

#include "ggml-cpp.h"
#include "gguf.h"
#include "llama-adapter.h"
#include "llama-model-loader.h"
#include "models/models.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

namespace bitnet {
namespace {

const char * const ARCHITECTURES[] = {"bitnet-b1.58", "bitnet-25"};

// The least magnitude that a row of activations is scaled to, as in the model's training.
constexpr float FLOOR = 1e-5f;

// The nodes that a layer multiplies in.
struct Operations {
    gl_ternary_operation qkv, attention_output, gate_up, down;

    explicit Operations(float epsilon, bool scales)
        : qkv{3, true, false, scales, false, epsilon, FLOOR}, attention_output{1, true, true, scales, false, epsilon, FLOOR},
          gate_up{2, true, false, scales, true, epsilon, FLOOR}, down{1, true, true, scales, false, epsilon, FLOOR} {}
};

// Never called: the buffer's traits compute the node.
void computed_elsewhere(ggml_tensor *, int, int, void *) {
    GGML_ABORT("a ternary operation reached a backend without the ternary buffer");
}

// Whether one node may multiply with these: ternary weights of one type, in the ternary buffer. That buffer takes Q6_K too.
bool can_fuse(std::initializer_list<const ggml_tensor *> weights) {
    const ggml_type type = (*weights.begin())->type;
    const bool ternary = type == GGML_TYPE_TQ1_0 || type == GGML_TYPE_TQ2_0 || type == GGML_TYPE_Q2_0;
    return ternary && std::all_of(weights.begin(), weights.end(), [&](const ggml_tensor * matrix) {
        return matrix->type == type && matrix->buffer &&
               std::strcmp(ggml_backend_buffer_name(matrix->buffer), GL_TERNARY_BUFFER) == 0;
    });
}

struct Model : llama_model_bitnet {
    explicit Model(const llama_model_params & params) : llama_model_bitnet(params) {}

    void load_arch_tensors(llama_model_loader & loader) override {
        llama_model_bitnet::load_arch_tensors(loader);
        // A tensor of its own, so that the output matrix may lie in another buffer than the embeddings.
        const int64_t width = hparams.n_embd, rows = vocab.n_tokens();
        output = create_tensor(tn(LLM_TENSOR_OUTPUT, "weight"), {width, rows}, TENSOR_NOT_REQUIRED);
        if (!output) {
            output = create_tensor(tn(LLM_TENSOR_TOKEN_EMBD, "weight"), {width, rows}, TENSOR_DUPLICATED);
        }
    }

    bool load_tensors(llama_model_loader & loader) override {
        if (!llama_model_bitnet::load_tensors(loader)) {
            return false;
        }
        fused = true;
        bool all_scaled = true, none_scaled = true;
        for (const llama_layer & layer : layers) {
            fused = fused && can_fuse({layer.wq, layer.wk, layer.wv}) && can_fuse({layer.wo}) &&
                    can_fuse({layer.ffn_gate, layer.ffn_up}) && can_fuse({layer.ffn_down});
            for (const auto & scale :
                 {layer.wq_s, layer.wk_s, layer.wv_s, layer.wo_s, layer.ffn_gate_s, layer.ffn_up_s, layer.ffn_down_s}) {
                all_scaled = all_scaled && scale && ggml_backend_buffer_is_host(scale->buffer);
                none_scaled = none_scaled && !scale;
            }
        }
        fused = fused && (all_scaled || none_scaled);
        operations = std::make_unique<Operations>(hparams.f_norm_rms_eps, !none_scaled);
        return true;
    }

    std::unique_ptr<llm_graph_context> build_arch_graph(const llm_graph_params & params) const override;

    bool fused = false;
    // Nodes of graphs point to these.
    std::unique_ptr<Operations> operations;
};

struct Graph : llm_graph_context {
    const Model & model;
    const int64_t head_width;
    const bool fused;

    Graph(const Model & model, const llm_graph_params & params)
        : llm_graph_context(params), model(model), head_width(hparams.n_embd_head_v()), fused(model.fused && loras->empty()) {
        ggml_tensor * hidden = build_inp_embd(model.tok_embd);
        ggml_tensor * positions = build_inp_pos();
        auto * attention = build_attn_inp_kv();
        ggml_tensor * wanted = build_inp_out_ids();
        for (int layer = 0; layer < n_layer; ++layer) {
            // After the last attention only the tokens whose logits are asked for matter.
            hidden = block(hidden, positions, attention, layer == n_layer - 1 ? wanted : nullptr, layer);
        }
        hidden = build_norm(hidden, model.output_norm, nullptr, LLM_NORM_RMS, -1);
        cb(hidden, "result_norm", -1);
        res->t_embd = hidden;
        ggml_tensor * logits = build_lora_mm(model.output, hidden);
        cb(logits, "result_output", -1);
        res->t_logits = logits;
        ggml_build_forward_expand(gf, logits);
    }

    ggml_tensor * block(ggml_tensor * hidden, ggml_tensor * positions, llm_graph_input_attn_kv * attention,
                        ggml_tensor * wanted, int il) {
        const llama_layer & layer = model.layers[il];
        ggml_tensor *q, *k, *v;
        if (fused) {
            ggml_tensor * qkv = operation(model.operations->qkv, {layer.wq, layer.wk, layer.wv}, hidden, layer.attn_norm,
                                          nullptr, {layer.wq_s, layer.wk_s, layer.wv_s});
            cb(qkv, "wqkv", il);
            const size_t head = ggml_row_size(qkv->type, head_width);
            q = ggml_view_3d(ctx0, qkv, head_width, n_head, n_tokens, head, qkv->nb[1], 0);
            k = ggml_view_3d(ctx0, qkv, head_width, n_head_kv, n_tokens, head, qkv->nb[1], head * n_head);
            v = ggml_view_3d(ctx0, qkv, head_width, n_head_kv, n_tokens, head, qkv->nb[1], head * (n_head + n_head_kv));
        } else {
            ggml_tensor * input = build_norm(hidden, layer.attn_norm, nullptr, LLM_NORM_RMS, il);
            cb(input, "attn_norm", il);
            const llm_graph_qkv separate = build_qkv(layer, input, head_width, n_head, n_head_kv, il);
            q = separate.q;
            k = separate.k;
            v = separate.v;
        }
        q = rope(q, positions);
        k = rope(k, positions);
        cb(q, "Qcur", il);
        cb(k, "Kcur", il);
        cb(v, "Vcur", il);
        const float scale = 1.0f / std::sqrt(static_cast<float>(head_width));
        ggml_tensor * mixed =
            build_attn(attention, nullptr, nullptr, nullptr, q, k, v, nullptr, nullptr, nullptr, scale, il);
        if (wanted) {
            mixed = ggml_get_rows(ctx0, mixed, wanted);
            hidden = ggml_get_rows(ctx0, hidden, wanted);
        }

        hidden = fused ? operation(model.operations->attention_output, {layer.wo}, mixed, layer.attn_sub_norm, hidden,
                                   {layer.wo_s})
                       : normalised_product(layer.wo, layer.wo_s, mixed, layer.attn_sub_norm, hidden, il);
        cb(hidden, "ffn_inp", il);

        ggml_tensor * gated;
        if (fused) {
            gated = operation(model.operations->gate_up, {layer.ffn_gate, layer.ffn_up}, hidden, layer.ffn_norm, nullptr,
                              {layer.ffn_gate_s, layer.ffn_up_s});
        } else {
            ggml_tensor * input = build_norm(hidden, layer.ffn_norm, nullptr, LLM_NORM_RMS, il);
            cb(input, "ffn_norm", il);
            // build_ffn would multiply an adapter's product with the scale, too.
            ggml_tensor * gate = build_lora_mm(layer.ffn_gate, input, layer.ffn_gate_s);
            ggml_tensor * up = build_lora_mm(layer.ffn_up, input, layer.ffn_up_s);
            gated = ggml_mul(ctx0, ggml_sqr(ctx0, ggml_relu(ctx0, gate)), up);
        }
        cb(gated, "ffn_sub_out", il);
        hidden = fused ? operation(model.operations->down, {layer.ffn_down}, gated, layer.ffn_sub_norm, hidden,
                                   {layer.ffn_down_s})
                       : normalised_product(layer.ffn_down, layer.ffn_down_s, gated, layer.ffn_sub_norm, hidden, il);
        hidden = build_cvec(hidden, il);
        cb(hidden, "l_out", il);
        return hidden;
    }

    // residual + weights @ norm(input), of libllama's own nodes.
    ggml_tensor * normalised_product(ggml_tensor * weights, ggml_tensor * scale, ggml_tensor * input, ggml_tensor * norm,
                                     ggml_tensor * residual, int il) {
        input = build_norm(input, norm, nullptr, LLM_NORM_RMS, il);
        return ggml_add(ctx0, build_lora_mm(weights, input, scale), residual);
    }

    ggml_tensor * rope(ggml_tensor * heads, ggml_tensor * positions) {
        return ggml_rope_ext(ctx0, heads, positions, nullptr, n_rot, rope_type, n_ctx_orig, freq_base, freq_scale,
                             ext_factor, attn_factor, beta_fast, beta_slow);
    }

    ggml_tensor * operation(const gl_ternary_operation & operation, const std::vector<ggml_tensor *> & weights,
                            ggml_tensor * input, ggml_tensor * norm, ggml_tensor * residual,
                            const std::vector<ggml_tensor *> & scales) {
        std::vector<ggml_tensor *> sources = weights;
        sources.push_back(input);
        sources.push_back(norm);
        if (operation.residual) {
            sources.push_back(residual);
        }
        if (operation.scales) {
            sources.insert(sources.end(), scales.begin(), scales.end());
        }
        int64_t width = 0;
        for (const ggml_tensor * matrix : weights) {
            width = operation.gate ? matrix->ne[1] : width + matrix->ne[1];
        }
        return ggml_custom_4d(ctx0, GGML_TYPE_F32, width, input->ne[1], 1, 1, sources.data(),
                              static_cast<int>(sources.size()), computed_elsewhere, GGML_N_TASKS_MAX,
                              const_cast<gl_ternary_operation *>(&operation));
    }
};

std::unique_ptr<llm_graph_context> Model::build_arch_graph(const llm_graph_params & params) const {
    return std::make_unique<Graph>(*this, params);
}

// Copies one key under another name. One that libllama does not expect may have any type.
void copy_key(gguf_context * file, int64_t from, const char * to) {
    switch (gguf_get_kv_type(file, from)) {
        case GGUF_TYPE_UINT8:   return gguf_set_val_u8(file, to, gguf_get_val_u8(file, from));
        case GGUF_TYPE_INT8:    return gguf_set_val_i8(file, to, gguf_get_val_i8(file, from));
        case GGUF_TYPE_UINT16:  return gguf_set_val_u16(file, to, gguf_get_val_u16(file, from));
        case GGUF_TYPE_INT16:   return gguf_set_val_i16(file, to, gguf_get_val_i16(file, from));
        case GGUF_TYPE_UINT32:  return gguf_set_val_u32(file, to, gguf_get_val_u32(file, from));
        case GGUF_TYPE_INT32:   return gguf_set_val_i32(file, to, gguf_get_val_i32(file, from));
        case GGUF_TYPE_UINT64:  return gguf_set_val_u64(file, to, gguf_get_val_u64(file, from));
        case GGUF_TYPE_INT64:   return gguf_set_val_i64(file, to, gguf_get_val_i64(file, from));
        case GGUF_TYPE_FLOAT32: return gguf_set_val_f32(file, to, gguf_get_val_f32(file, from));
        case GGUF_TYPE_FLOAT64: return gguf_set_val_f64(file, to, gguf_get_val_f64(file, from));
        case GGUF_TYPE_BOOL:    return gguf_set_val_bool(file, to, gguf_get_val_bool(file, from));
        case GGUF_TYPE_STRING:  return gguf_set_val_str(file, to, std::string(gguf_get_val_str(file, from)).c_str());
        case GGUF_TYPE_ARRAY:   break;
        case GGUF_TYPE_COUNT:   return;
    }
    const gguf_type type = gguf_get_arr_type(file, from);
    const size_t count = gguf_get_arr_n(file, from);
    if (type != GGUF_TYPE_STRING) {
        return gguf_set_arr_data(file, to, type, gguf_get_arr_data(file, from), count);
    }
    std::vector<const char *> texts(count);
    for (size_t i = 0; i < count; ++i) {
        texts[i] = gguf_get_arr_str(file, from, i);
    }
    gguf_set_arr_str(file, to, texts.data(), count);
}

void rename_keys(gguf_context * file, const std::string & architecture) {
    const std::string prefix = architecture + ".";
    std::vector<std::string> names;
    for (int64_t i = 0; i < gguf_get_n_kv(file); ++i) {
        const std::string key = gguf_get_key(file, i);
        if (key.compare(0, prefix.size(), prefix) == 0) {
            names.push_back(key.substr(prefix.size()));
        }
    }
    // To set a key moves others where there was one of its name.
    for (const std::string & name : names) {
        copy_key(file, gguf_find_key(file, (prefix + name).c_str()), ("bitnet." + name).c_str());
    }
}

// What a file says of itself; nothing where it cannot be read.
std::string architecture_of(const char * path) {
    const gguf_context_ptr file(gguf_init_from_file(path, {/*no_alloc=*/true, /*ctx=*/nullptr}));
    const int64_t key = file ? gguf_find_key(file.get(), "general.architecture") : -1;
    const bool is_text = key >= 0 && gguf_get_kv_type(file.get(), key) == GGUF_TYPE_STRING;
    return is_text ? gguf_get_val_str(file.get(), key) : "";
}

} // namespace

bool is_architecture(const std::string & name) {
    for (const char * known : ARCHITECTURES) {
        if (name == known) {
            return true;
        }
    }
    return false;
}

llama_model * load(const std::string & path, const llama_model_params & params) {
    std::vector<std::string> splits;
    llama_model_loader loader(nullptr, nullptr, nullptr, path, splits, nullptr, params.load_mode, params.check_tensors,
                              params.no_alloc, params.load_mtp, params.kv_overrides, params.tensor_buft_overrides);
    loader.lazy.mode = params.lazy_mode;
    rename_keys(loader.metadata, loader.get_arch_name());
    loader.llm_kv = LLM_KV(LLM_ARCH_BITNET);

    auto model = std::make_unique<Model>(params);
    model->arch = LLM_ARCH_BITNET;
    for (ggml_backend_dev_t * device = params.devices; device && *device; ++device) {
        model->devices.push_back({false, *device});
    }
    model->hparams.vocab_only = params.vocab_only;
    model->hparams.no_alloc = params.no_alloc;
    model->load_hparams(loader);
    model->load_vocab(loader);
    model->load_stats(loader);
    model->print_info();
    if (!params.vocab_only && !model->load_tensors(loader)) {
        return nullptr;
    }
    return model.release();
}

bool is_fused(const llama_model * model) {
    const auto * ours = dynamic_cast<const Model *>(model);
    return ours && ours->fused;
}

llama_adapter_lora * load_adapter(llama_model * model, const char * path) {
    if (model->arch != LLM_ARCH_BITNET || !is_architecture(architecture_of(path))) {
        return llama_adapter_lora_init(model, path);
    }
    // libllama compares the name in the file with the model's architecture, and that name stands for none that it knows. It
    // asks the model for its tensors besides; a model that has these, and no architecture, passes. Other threads may be
    // computing with the real one, so that it cannot be changed meanwhile.
    Model stand_in(llama_model_default_params());
    stand_in.tensors_by_name = model->tensors_by_name;
    llama_adapter_lora * adapter = llama_adapter_lora_init(&stand_in, path);
    if (adapter) {
        // Until it is in this list, it goes with the stand-in.
        model->loras.insert(adapter);
        adapter->model = model;
        stand_in.loras.clear();
    }
    return adapter;
}

} // namespace bitnet
