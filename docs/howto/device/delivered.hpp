// What a delivered folder says: how a photo becomes an input (preprocess.json), and what outputs mean (classes.txt).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

using Bytes = std::vector<std::uint8_t>;

constexpr std::int64_t most_pixels = 1 << 26;  // as in run.py: a file of a few hundred bytes may claim any number

struct Image {
    int width, height, channels;
    Bytes bytes;  // row by row, the channels of a pixel side by side
};

struct Input {
    std::vector<float> values;        // channel by channel, row by row
    std::vector<std::int64_t> shape;  // channels, height, width
};

inline Bytes bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("There is no file " + path + ".");
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

// Returns how the pixels of a JPEG file lie, 1 to 8 as EXIF numbers it. 1 is upright, also where the file doesn't say.
inline int orientation(const Bytes& file) {
    const auto number = [&file](std::size_t at, int count, bool little) {
        if (at > file.size() || std::size_t(count) > file.size() - at)
            throw std::runtime_error("The photo's EXIF data are cut off.");
        std::size_t value = 0;
        for (int i = 0; i < count; i++) value = value << 8 | file[little ? at + count - 1 - i : at + i];
        return value;
    };
    if (file.size() < 4 || number(0, 2, false) != 0xFFD8) return 1;
    for (std::size_t at = 2; at + 18 < file.size() && file[at] == 0xFF && file[at + 1] != 0xDA;
         at += 2 + number(at + 2, 2, false)) {
        if (file[at + 1] != 0xE1 || std::memcmp(&file[at + 4], "Exif\0", 6) != 0) continue;
        const std::size_t start = at + 10;
        const bool little = file[start] == 'I';
        const std::size_t table = start + number(start + 4, 4, little);
        for (std::size_t i = 0; i < number(table, 2, little); i++) {
            const std::size_t entry = table + 2 + 12 * i;
            if (number(entry, 2, little) == 0x0112) return int(number(entry + 8, 2, little));
        }
    }
    return 1;
}

// Returns a photo upright, with 3 channels for mode "RGB" and 1 for "L".
inline Image decoded(const std::string& path, const std::string& mode) {
    const Bytes file = bytes_of(path);
    const int size = int(file.size());
    int width = 0, height = 0, channels = 0;
    if (!stbi_info_from_memory(file.data(), size, &width, &height, &channels))
        throw std::runtime_error(path + " is no image that can be used: " + stbi_failure_reason());
    if (stbi_is_16_bit_from_memory(file.data(), size) || std::int64_t(width) * height > most_pixels)
        throw std::runtime_error(path + " has 16 bits per value, or more than 67,108,864 pixels.");
    stbi_uc* const pixels = stbi_load_from_memory(file.data(), size, &width, &height, &channels, 3);
    if (!pixels) throw std::runtime_error(path + " is no image that can be used: " + stbi_failure_reason());

    const int turn = orientation(file);
    const bool swaps = turn >= 5 && turn <= 8;
    const bool from_right = turn == 2 || turn == 3 || turn == 7 || turn == 8;
    const bool from_below = turn == 3 || turn == 4 || turn == 6 || turn == 7;
    Image image{swaps ? height : width, swaps ? width : height, mode == "L" ? 1 : 3, {}};
    for (int y = 0; y < image.height; y++) {
        for (int x = 0; x < image.width; x++) {
            const int column = swaps ? y : x, row = swaps ? x : y;
            const std::size_t place = std::size_t(from_below ? height - 1 - row : row) * width +
                                      (from_right ? width - 1 - column : column);
            const stbi_uc* rgb = pixels + 3 * place;
            if (image.channels == 3)
                image.bytes.insert(image.bytes.end(), rgb, rgb + 3);
            else
                image.bytes.push_back(std::uint8_t((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16));
        }
    }
    stbi_image_free(pixels);
    return image;
}

// Scales an axis from `before` places to `after`, as Pillow does: bilinear, by a triangle that widens where the image
// shrinks, with weights of 22 bits. A place holds `step` values.
inline Bytes scaled(const Bytes& from, int before, int after, std::size_t step) {
    const std::size_t lines = from.size() / (before * step);
    const double ratio = double(before) / after, reach = std::max(1.0, ratio);
    Bytes to(lines * after * step);
    for (int place = 0; place < after; place++) {
        const double centre = (place + 0.5) * ratio;
        const int first = std::max(0, int(centre - reach + 0.5));
        const int last = std::min(before, int(centre + reach + 0.5));
        std::vector<double> heights;
        for (int i = first; i < last; i++) heights.push_back(std::max(0.0, 1 - std::abs((i - centre + 0.5) / reach)));
        const double sum = std::accumulate(heights.begin(), heights.end(), 0.0);
        std::vector<int> weights;
        for (const double height : heights) weights.push_back(int(0.5 + height / sum * (1 << 22)));
        for (std::size_t line = 0; line < lines; line++) {
            for (std::size_t value = 0; value < step; value++) {
                int total = 1 << 21;
                for (int i = first; i < last; i++)
                    total += from[(line * before + i) * step + value] * weights[i - first];
                to[(line * after + place) * step + value] = std::uint8_t(std::clamp(total >> 22, 0, 255));
            }
        }
    }
    return to;
}

// Returns the input that preprocess.json makes of a photo.
inline Input input_of(const std::string& folder, const std::string& photo) {
    const auto how = nlohmann::json::parse(bytes_of(folder + "/preprocess.json"));
    if (how.is_null()) throw std::runtime_error("preprocess.json doesn't say how a photo becomes an input.");
    Image image = decoded(photo, how.at("mode"));
    const int shorter = std::min(image.width, image.height);
    if (const auto& resize = how.at("resize"); !resize.is_null() && resize != shorter) {
        const double ratio = resize.get<double>() / shorter;
        const int width = std::max(resize.get<int>(), int(image.width * ratio));
        const int height = std::max(resize.get<int>(), int(image.height * ratio));
        if (std::int64_t(width) * height > most_pixels) throw std::runtime_error("The photo is too thin to be scaled.");
        if (width != image.width) image.bytes = scaled(image.bytes, image.width, width, image.channels);
        if (height != image.height)
            image.bytes = scaled(image.bytes, image.height, height, std::size_t(width) * image.channels);
        image.width = width, image.height = height;
    }
    const auto& crop = how.at("crop");
    const int height = crop.is_null() ? image.height : crop[0].get<int>();
    const int width = crop.is_null() ? image.width : crop[1].get<int>();
    const int top = int(std::nearbyint((image.height - height) / 2.0));  // 0.5 goes to the even number, as in Python
    const int left = int(std::nearbyint((image.width - width) / 2.0));
    Input input{{}, {image.channels, height, width}};
    for (int channel = 0; channel < image.channels; channel++) {
        const float mean = how.at("mean").at(channel), deviation = how.at("std").at(channel);
        for (int y = top; y < top + height; y++) {
            for (int x = left; x < left + width; x++) {
                const bool inside = x >= 0 && y >= 0 && x < image.width && y < image.height;
                const std::size_t place = (std::size_t(y) * image.width + x) * image.channels + channel;
                const int byte = inside ? image.bytes[place] : 0;  // outside is black
                input.values.push_back((byte / 255.0f - mean) / deviation);
            }
        }
    }
    return input;
}

// Prints the most likely classes: probability, score as the model gives it, name.
inline void show(const std::string& folder, const std::vector<float>& scores) {
    std::vector<std::string> names;
    std::ifstream file(folder + "/classes.txt");
    for (std::string line; std::getline(file, line);) names.push_back(line);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    const double best = scores[order[0]];
    double sum = 0;
    for (const float score : scores) sum += std::exp(score - best);
    order.resize(std::min<std::size_t>(order.size(), 5));
    for (const std::size_t index : order) {
        const std::string name = index < names.size() ? names[index] : std::to_string(index);
        std::printf("%6.1f%%  %9.5f  %s\n", 100 * std::exp(scores[index] - best) / sum, scores[index], name.c_str());
    }
}
