// Trains with train_step.onnx in C++: train_step BUNDLE_STEP STATE BATCHES OUT NUM_STEPS BATCH IMAGE_SIZE CLASSES
//
// g++ -std=c++17 -O2 -I onnxruntime/include train_step.cpp -o train_step onnxruntime/lib/libonnxruntime.so
//
// BUNDLE_STEP is train_step.onnx of a bundle, STATE its initial_state.safetensors (or a state that was saved here). BATCHES
// is a folder with, for each step k, the raw little-endian files k.images, k.server_logits, k.alpha, k.learning_rate
// (float32) and k.labels (int64). OUT gets the state vectors after the last step as raw files, and losses.
#include <onnxruntime_cxx_api.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>
#include <vector>

using Bytes = std::vector<char>;

Bytes read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw std::runtime_error("cannot read " + path);
  return Bytes(std::istreambuf_iterator<char>(stream), {});
}

void write_file(const std::string& path, const char* data, size_t size) {
  std::ofstream stream(path, std::ios::binary);
  if (!stream.write(data, static_cast<std::streamsize>(size))) throw std::runtime_error("cannot write " + path);
}

// One vector of the state: its bytes, and the view of them that ONNX Runtime reads or writes.
struct Vector {
  Bytes bytes;
  Ort::Value value{nullptr};
};
using State = std::map<std::string, Vector>;

Ort::Value view(const Ort::MemoryInfo& memory, Bytes& bytes, ONNXTensorElementDataType type, const std::vector<int64_t>& shape) {
  return Ort::Value::CreateTensor(memory, bytes.data(), bytes.size(), shape.data(), shape.size(), type);
}

// safetensors: 8 bytes of header length, a JSON header, the tensors back to back. The state has one-dimensional
// vectors only, so that a pattern does for the header.
State read_state(const std::string& path, const Ort::MemoryInfo& memory) {
  const Bytes file = read_file(path);
  uint64_t header_size = 0;
  if (file.size() < 8) throw std::runtime_error(path + " is no safetensors file");
  std::memcpy(&header_size, file.data(), 8);
  if (header_size > file.size() - 8) throw std::runtime_error(path + " is cut short");
  const std::string header(file.data() + 8, header_size);
  // Fields may stand in any order within an entry: find each entry first, then its fields.
  const std::regex entry("\"([A-Za-z0-9_]+)\":\\{([^{}]*)\\}");
  const std::regex dtype("\"dtype\":\"(F32|I64)\""), offsets("\"data_offsets\":\\[(\\d+),(\\d+)\\]");
  State state;
  for (auto it = std::sregex_iterator(header.begin(), header.end(), entry); it != std::sregex_iterator(); ++it) {
    const std::string fields = (*it)[2];
    std::smatch type, range;
    if ((*it)[1] == "__metadata__" || !std::regex_search(fields, type, dtype) || !std::regex_search(fields, range, offsets))
      continue;
    const size_t begin = std::stoull(range[1]), end = std::stoull(range[2]);
    if (begin > end || end > file.size() - 8 - header_size) throw std::runtime_error(path + " is cut short");
    const bool is_float = type[1] == "F32";
    Vector& vector = state[(*it)[1]];
    const char* data = file.data() + 8 + header_size;
    vector.bytes.assign(data + begin, data + end);
    const auto length = static_cast<int64_t>((end - begin) / (is_float ? 4 : 8));
    vector.value = view(memory, vector.bytes, is_float ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, {length});
  }
  return state;
}

int main(int argc, char** argv) try {
  if (argc != 9) throw std::runtime_error("give train_step.onnx, state, batches, out, steps, batch, image size, classes");
  const std::string batches = std::string(argv[3]) + "/", out = std::string(argv[4]) + "/";
  const int num_steps = std::stoi(argv[5]);
  const int64_t num = std::stoll(argv[6]), size = std::stoll(argv[7]), classes = std::stoll(argv[8]);

  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "gkt");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1).DisableMemPattern();  // less memory, and no slower
  Ort::Session session(env, argv[1], options);
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  // Two sets of buffers that change places: a step reads one and writes the other, and nothing is copied.
  State current = read_state(argv[2], memory), spare = read_state(argv[2], memory);
  std::vector<float> losses;
  for (int step = 0; step < num_steps; ++step) {
    const std::string prefix = batches + std::to_string(step) + ".";
    std::map<std::string, Bytes> inputs;
    for (const char* name : {"images", "labels", "server_logits", "alpha", "learning_rate"}) inputs[name] = read_file(prefix + name);
    const std::map<std::string, std::vector<int64_t>> shapes = {
        {"images", {num, 3, size, size}}, {"labels", {num}}, {"server_logits", {num, classes}}, {"alpha", {}}, {"learning_rate", {}}};
    Ort::IoBinding binding(session);
    for (auto& [name, bytes] : inputs) {
      const auto type = name == "labels" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
      binding.BindInput(name.c_str(), view(memory, bytes, type, shapes.at(name)));
    }
    for (auto& [name, vector] : current) binding.BindInput(name.c_str(), vector.value);
    for (auto& [name, vector] : spare) binding.BindOutput(("next_" + name).c_str(), vector.value);
    float loss = 0;
    binding.BindOutput("loss", Ort::Value::CreateTensor<float>(memory, &loss, 1, nullptr, 0));
    session.Run(Ort::RunOptions{}, binding);
    losses.push_back(loss);
    std::swap(current, spare);
  }
  for (const auto& [name, vector] : current) write_file(out + name, vector.bytes.data(), vector.bytes.size());
  write_file(out + "losses", reinterpret_cast<const char*>(losses.data()), losses.size() * sizeof(float));
  return 0;
} catch (const std::exception& error) {
  std::cerr << "error: " << error.what() << "\n";
  return 1;
}
