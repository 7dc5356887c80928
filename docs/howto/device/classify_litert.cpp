// Classifies a photo with the model.tflite of a delivered folder: classify_litert FOLDER PHOTO
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <type_traits>

#include <litert/c/litert_common.h>
#include <litert/c/litert_compiled_model.h>
#include <litert/c/litert_environment.h>
#include <litert/c/litert_model.h>
#include <litert/c/litert_options.h>
#include <litert/c/litert_tensor_buffer.h>

#include "delivered.hpp"

void check(LiteRtStatus status, const char* what) {
    if (status != kLiteRtStatusOk)
        throw std::runtime_error(std::string(what) + " failed with LiteRT's status " + std::to_string(status) + ".");
}

// Keeps a handle of LiteRT's and gives it back at the end of its scope.
template <class Handle>
auto kept(Handle handle, void (*destroy)(Handle)) {
    return std::unique_ptr<std::remove_pointer_t<Handle>, void (*)(Handle)>(handle, destroy);
}

// Returns a buffer for an input or an output of the model.
auto buffer_for(LiteRtEnvironment environment, LiteRtTensor tensor, LiteRtTensorBufferRequirements requirements) {
    LiteRtRankedTensorType type;
    check(LiteRtGetRankedTensorType(tensor, &type), "Reading a tensor's type");
    if (type.element_type != kLiteRtElementTypeFloat32) throw std::runtime_error("The model's numbers aren't float32.");
    LiteRtTensorBuffer buffer;
    const auto status = LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, requirements, &buffer);
    check(status, "Making a buffer");
    return kept(buffer, LiteRtDestroyTensorBuffer);
}

// Returns the scores that a .tflite file gives an input.
std::vector<float> scores(const std::string& path, const Input& input) {
    LiteRtEnvironment environment;
    check(LiteRtCreateEnvironment(0, nullptr, &environment), "Starting LiteRT");
    const auto keep_environment = kept(environment, LiteRtDestroyEnvironment);
    LiteRtModel model;
    check(LiteRtCreateModelFromFile(environment, path.c_str(), &model), "Reading model.tflite");
    const auto keep_model = kept(model, LiteRtDestroyModel);
    LiteRtOptions options;
    check(LiteRtCreateOptions(&options), "Making options");
    const auto keep_options = kept(options, LiteRtDestroyOptions);
    check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu), "Choosing the CPU");
    LiteRtCompiledModel compiled;
    check(LiteRtCreateCompiledModel(environment, model, options, &compiled), "Preparing the model");
    const auto keep_compiled = kept(compiled, LiteRtDestroyCompiledModel);

    LiteRtSignature signature;
    check(LiteRtGetModelSignature(model, 0, &signature), "Finding the model's signature");
    LiteRtTensor tensor;
    LiteRtTensorBufferRequirements requirements;
    check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "Finding the input");
    check(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, 0, &requirements), "Reading what it needs");
    const auto given = buffer_for(environment, tensor, requirements);
    check(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor), "Finding the output");
    check(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &requirements), "Reading what it needs");
    const auto made = buffer_for(environment, tensor, requirements);

    // A file takes a fixed number of photos, mostly 1: the batch is filled up with the same photo.
    std::size_t size;
    void* place;
    check(LiteRtGetTensorBufferPackedSize(given.get(), &size), "Measuring the input");
    const std::size_t sample = input.values.size() * sizeof(float);
    if (size == 0 || size % sample != 0)
        throw std::runtime_error("preprocess.json makes images of another size than the model takes.");
    check(LiteRtLockTensorBuffer(given.get(), &place, kLiteRtTensorBufferLockModeWrite), "Opening the input");
    for (std::size_t i = 0; i < size / sample; i++)
        std::memcpy(static_cast<char*>(place) + i * sample, input.values.data(), sample);
    check(LiteRtUnlockTensorBuffer(given.get()), "Closing the input");

    LiteRtTensorBuffer inputs[] = {given.get()}, outputs[] = {made.get()};
    check(LiteRtRunCompiledModel(compiled, 0, 1, inputs, 1, outputs), "Running the model");

    const std::size_t batch = size / sample;
    check(LiteRtGetTensorBufferPackedSize(made.get(), &size), "Measuring the output");
    check(LiteRtLockTensorBuffer(made.get(), &place, kLiteRtTensorBufferLockModeRead), "Opening the output");
    const float* const numbers = static_cast<const float*>(place);
    const std::vector<float> found(numbers, numbers + size / sizeof(float) / batch);
    check(LiteRtUnlockTensorBuffer(made.get()), "Closing the output");
    return found;
}

int main(int count, char** arguments) try {
    if (count != 3) throw std::runtime_error("classify_litert FOLDER PHOTO");
    const std::string folder = arguments[1];
    show(folder, scores(folder + "/model.tflite", input_of(folder, arguments[2])));
} catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
