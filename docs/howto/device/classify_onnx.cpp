// Classifies a photo with the model.onnx of a delivered folder: classify_onnx FOLDER PHOTO
#include <cstdio>
#include <exception>
#include <filesystem>

#include <onnxruntime_cxx_api.h>

#include "delivered.hpp"

int main(int count, char** arguments) try {
    if (count != 3) throw std::runtime_error("classify_onnx FOLDER PHOTO");
    const std::string folder = arguments[1];
    const Input input = input_of(folder, arguments[2]);

    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "classify");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    Ort::Session session(environment, std::filesystem::path(folder + "/model.onnx").c_str(), options);
    Ort::AllocatorWithDefaultOptions allocator;
    const auto input_name = session.GetInputNameAllocated(0, allocator);
    const auto output_name = session.GetOutputNameAllocated(0, allocator);

    // A file takes any number of photos, or a fixed one: then the batch is filled up with the same photo.
    const auto sizes = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    const std::int64_t batch = std::max<std::int64_t>(1, sizes.at(0));  // -1 stands for any number
    std::vector<float> values;
    for (std::int64_t i = 0; i < batch; i++) values.insert(values.end(), input.values.begin(), input.values.end());
    const std::vector<std::int64_t> shape{batch, input.shape[0], input.shape[1], input.shape[2]};

    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = Ort::Value::CreateTensor(memory, values.data(), values.size(), shape.data(), shape.size());
    const char* const inputs[] = {input_name.get()};
    const char* const outputs[] = {output_name.get()};
    const auto results = session.Run(Ort::RunOptions{}, inputs, &tensor, 1, outputs, 1);
    const std::size_t classes = results[0].GetTensorTypeAndShapeInfo().GetElementCount() / batch;
    const float* const scores = results[0].GetTensorData<float>();
    show(folder, std::vector<float>(scores, scores + classes));
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
