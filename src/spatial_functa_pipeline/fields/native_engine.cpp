// The field's heavy part on a CPU: values of the SIREN, gradients for its shifts, and what differentiates both.
//
// A point's activations never leave the cache: each thread takes the points in small blocks and runs all layers of a
// block, forwards and backwards, before it goes on to the next. Nothing is stored for a backward pass; it runs the block
// forwards again, which costs less than the memory traffic.
//
//   a_1 = u + s_1,  a_l = h_{l-1} V_l' + s_l,  h_l = sin a_l,  y = h_L w' + b
//
// Points come in rows of `points`, which all have the same coordinates: u (points, W) is the first layer's part of them.
// A row has `cells` cells with shifts (rows, cells, L, W); s at a point is the sum over its `neighbours` of weight * shift.
// V (L - 1, W, W); w (channels, W). The loss of the inner loop is scale / 2 * sum (y - x)^2, so its gradient for y is
// scale * (y - x).
//
// `gradient` is the loss's gradient for the shifts, with y beside it. Its own derivative, times a direction of their shape, is
// the derivative of the directional derivative: the field is run forwards with tangents (dots below) along the direction, and
// backwards through both. Values and tangents are two streams through the same matrix products. Along that direction, the
// gradient's derivative for y is scale times the tangent of y, and for the targets minus that.
//
// The functions return 0, or 1 if there is not enough memory. They trust the shapes, which `native_engine.py` checks.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include <omp.h>

#if defined(__AVX512F__)
constexpr int LANES = 16;
constexpr int ROWS = 8;  // of the register tile
#elif defined(__AVX__)
constexpr int LANES = 8;
constexpr int ROWS = 4;
#else
constexpr int LANES = 4;
constexpr int ROWS = 8;
#endif
constexpr int VECTORS = 2;   // of the register tile
constexpr int TILE = LANES * VECTORS;

typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Aligned __attribute__((vector_size(LANES * 4)));
typedef int32_t Integers __attribute__((vector_size(LANES * 4)));

static inline Aligned load(const float* p) { return *(const Vector*)p; }
static inline void store(float* p, Aligned v) { *(Vector*)p = v; }

// Two bfloat16 values, rows 2k and 2k + 1 or columns 2k and 2k + 1, as the instruction set multiplies them.
typedef uint32_t Pair;

static inline uint32_t round_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;  // NaN, whatever its bits are
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

#if defined(__AVX512BF16__)
#include <immintrin.h>
constexpr bool HAS_BF16 = true;
typedef __m256i Short;  // as many bfloat16 values as there are lanes
static inline Short shorten(Aligned v) { return (__m256i)_mm512_cvtneps_pbh((__m512)v); }
static inline void store_short(uint16_t* to, Short v) { _mm256_storeu_si256((__m256i*)to, v); }
static inline void pair_up(Pair* to, Short low, Short high) {
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)));
}
static inline Aligned multiply_add(Aligned sum, Pair a, const Pair* b) {
    return (Aligned)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)_mm512_loadu_si512(b));
}
#else
constexpr bool HAS_BF16 = false;
typedef Aligned Short;
static inline Short shorten(Aligned v) { abort(); return v; }
static inline void store_short(uint16_t*, Short) { abort(); }
static inline void pair_up(Pair*, Short, Short) { abort(); }
static inline Aligned multiply_add(Aligned sum, Pair, const Pair*) { abort(); return sum; }
#endif
static inline Aligned multiply_add(Aligned sum, float a, const float* b) { return sum + a * load(b); }

// C (ROWS x TILE) = or += A B over `depth`; A's element (i, k) is a[i * row + k * step], B's row k starts at b + k * next.
template <class Number>
static inline void tile(int depth, const Number* a, long row, long step, const Number* b, long next, float* c, long ldc,
                        bool add) {
    Aligned sum[ROWS][VECTORS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < VECTORS; j++) sum[i][j] = add ? load(c + i * ldc + j * LANES) : Aligned{};
    for (int k = 0; k < depth; k++) {
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < VECTORS; j++)
                sum[i][j] = multiply_add(sum[i][j], a[i * row + k * step], b + k * next + j * LANES);
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < VECTORS; j++) store(c + i * ldc + j * LANES, sum[i][j]);
}

// Sine and cosine in one pass. x = n pi/2 + r with |r| <= pi/4, by Cody and Waite: pi/2 is a number of 8 bits, whose multiples
// are exact, and a remainder, so that x - n pi/2 is rounded once. Up to |x| = 1000 either result is within 1e-7. Polynomials:
// least squares on Chebyshev nodes. Where the sine is rounded to bfloat16 anyway, one degree less is a thousand times as
// accurate as that. Beyond |x| = 5e6 n is no longer exact: r = 0 there keeps the results within [-1, 1]; NaN stays NaN.
template <bool HALF>
static inline void sine_cosine(Aligned x, Aligned& sine, Aligned& cosine) {
    const float shift = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, which stands in the lowest bits
    Aligned n = x * 0.63661977236758134f + shift;
    const Integers quadrant = (Integers)n, sign = quadrant << 30 & INT32_MIN, odd = quadrant << 31 < 0;
    n -= shift;
    Aligned r = x - n * 1.5703125f;
    r -= n * 4.838267948966e-4f;
    Aligned u = r * r, s, c;
    const Integers far = u > 1.f;
    r = far ? Aligned{} : r;
    u = far ? Aligned{} : u;
    r = (Aligned)((Integers)r ^ sign);
    if constexpr (HALF) {
        s = 0.00815149949f * u + -0.166627522f;
        c = -0.00136503577f * u + 0.0416611616f;
    } else {
        s = -0.000194933242f * u + 0.00833195661f;
        s = s * u + -0.166666502f;
        c = 2.44356701e-05f * u + -0.00138873399f;
        c = c * u + 0.0416666462f;
    }
    s = s * (u * r) + r;
    c = c * u + -0.5f;
    c = (Aligned)((Integers)(c * u + 1.f) ^ sign);
    sine = odd ? c : s;
    cosine = odd ? -s : c;
}

struct Problem {
    int64_t rows, points, cells, neighbours, layers, width, channels;
    float scale;
    int32_t threads, half;  // half: the products between hidden layers in bfloat16, summed in float32
    const int32_t* cell;    // (points, neighbours)
    const float* weight;    // (points, neighbours)
    const float *shifts, *first, *hidden, *output_weight, *output_bias, *targets;
};

struct Gradients {
    float *shifts, *first, *hidden, *output_weight, *output_bias, *targets;
};

// What a call reads beside the problem, and what it writes, if not null: y and its gradient (rows, points, C); the shifts'
// direction and their gradient (rows, cells, L, W).
struct Flow {
    const float *direction, *from_values;
    float *values, *shifts;
};

// One thread's blocks. Number: float, or Pair for bfloat16. STREAMS: 2 with tangents. LEARN: gradients of all parameters.
template <class Number, int STREAMS, bool LEARN>
class Worker {
    static constexpr bool HALF = std::is_same<Number, Pair>::value;
    const Problem& p;
    const int L, W, R, C;
    const std::vector<Number>&ahead, &back;  // packed weights of the hidden layers, for either direction
    std::vector<float> waves, cosines, rates, products, deltas, y, gy, mixed;
    std::vector<Number> wave_rows, wave_pairs, delta_rows, delta_pairs;
    std::vector<size_t> places;  // of the block's points: where the shifts of their neighbours begin (R, neighbours)
    std::vector<int> within;     // position of each point in its row (R,)
    float* first = nullptr;      // gradient of the first layer's part (points, W)

    static int keep(int layers) { return LEARN ? layers : 1; }
    size_t plane() const { return (size_t)STREAMS * R * W; }
    float* wave(int l) { return waves.data() + (LEARN ? l : 0) * plane(); }

    // Rows of floats as the products take them, and in pairs of rows for the gradients of the weights.
    void convert(const float* from, Number* rows, Number* pairs) {
        for (int r = 0; r < STREAMS * R; r += 2) {
            const float *even = from + (size_t)r * W, *odd = even + W;
            uint16_t* to = (uint16_t*)rows + (size_t)r * W;
            Pair* pair = (Pair*)pairs + (size_t)r / 2 * W;
            for (int j = 0; j < W; j += LANES) {
                const Short low = shorten(load(even + j)), high = shorten(load(odd + j));
                store_short(to + j, low);
                store_short(to + W + j, high);
                pair_up(pair + j, low, high);
            }
        }
    }

    const Number* wave_operand(int l) {
        if constexpr (HALF) return wave_rows.data() + (LEARN ? l : 0) * plane() / 2;
        else return wave(l);
    }

    void multiply(const Number* rows, const Number* packed) {
        const int depth = HALF ? W / 2 : W;
        for (int n = 0; n < W; n += TILE)
            for (int m = 0; m < STREAMS * R; m += ROWS)
                tile(depth, rows + (size_t)m * depth, depth, 1, packed + (size_t)n * depth, TILE,
                     products.data() + (size_t)m * W + n, W, false);
    }

   public:
    std::vector<float> learned;  // gradients of hidden, output weight, output bias, and of first unless it is shared

    Worker(const Problem& p, int R, const std::vector<Number>& ahead, const std::vector<Number>& back, float* shared_first)
        : p(p), L(p.layers), W(p.width), R(R), C(p.channels), ahead(ahead), back(back) {
        waves.resize(keep(L) * plane());
        cosines.resize((size_t)L * R * W);
        if (STREAMS == 2) rates.resize((size_t)L * R * W);
        products.resize(plane());
        deltas.resize(plane());
        mixed.resize(2 * W);
        y.resize((size_t)STREAMS * R * C);
        gy.resize((size_t)STREAMS * R * C);
        places.resize((size_t)R * p.neighbours);
        within.resize(R);
        if (HALF) {
            wave_rows.resize(keep(L) * plane() / 2);
            delta_rows.resize(plane() / 2);
            if (LEARN) {
                wave_pairs.resize(L * plane() / 2);
                delta_pairs.resize(plane() / 2);
            }
        }
        if (LEARN) {
            const size_t others = (size_t)(L - 1) * W * W + (size_t)C * W + C;
            learned.resize(others + (shared_first ? 0 : p.points * W));
            first = shared_first ? shared_first : learned.data() + others;
        }
    }

    // The points t0 … t0 + n - 1 are the block's; its rows beyond n repeat the last one.
    void place(long t0, int n) {
        long row = t0 / p.points, point = t0 % p.points;
        for (int r = 0; r < R; r++) {
            within[r] = point;
            for (int k = 0; k < p.neighbours; k++)
                places[r * p.neighbours + k] = (row * p.cells + p.cell[point * p.neighbours + k]) * L * W;
            if (r + 1 < n && ++point == p.points) point = 0, row++;
        }
    }

    // The shift of layer l at row r.
    const float* interpolated(const float* shifts, int r, int l, float* into) const {
        const size_t* at = places.data() + r * p.neighbours;
        const size_t layer = (size_t)l * W;
        if (p.neighbours == 1) return shifts + at[0] + layer;
        const float* weight = p.weight + within[r] * p.neighbours;
        for (int k = 0; k < p.neighbours; k++) {
            const float* from = shifts + at[k] + layer;
            for (int j = 0; j < W; j += LANES)
                store(into + j, k > 0 ? load(into + j) + weight[k] * load(from + j) : weight[k] * load(from + j));
        }
        return into;
    }

    // Values (and tangents) of the block.
    void forward(const float* direction) {
        for (int l = 0; l < L; l++) {
            if (l > 0) multiply(wave_operand(l - 1), ahead.data() + (size_t)(l - 1) * W * W / (HALF ? 2 : 1));
            float* h = wave(l);
            const bool shortened = HALF && !LEARN && l < L - 1;  // nothing but the product reads this layer
            for (int r = 0; r < R; r++) {
                const float* shift = interpolated(p.shifts, r, l, mixed.data());
                const float* along = STREAMS == 2 ? interpolated(direction, r, l, mixed.data() + W) : nullptr;
                const float* base = l > 0 ? products.data() + (size_t)r * W : p.first + (size_t)within[r] * W;
                float* c = cosines.data() + ((size_t)l * R + r) * W;
                for (int j = 0; j < W; j += LANES) {
                    Aligned sine, cosine;
                    sine_cosine<HALF>(load(base + j) + load(shift + j), sine, cosine);
                    if (shortened) store_short((uint16_t*)wave_rows.data() + (size_t)r * W + j, shorten(sine));
                    else store(h + (size_t)r * W + j, sine);
                    store(c + j, cosine);
                    if constexpr (STREAMS == 2) {
                        Aligned rate = load(along + j);
                        if (l > 0) rate += load(products.data() + (size_t)(R + r) * W + j);
                        store(rates.data() + ((size_t)l * R + r) * W + j, rate);
                        store(h + (size_t)(R + r) * W + j, cosine * rate);
                    }
                }
            }
            if (HALF && LEARN && l < L - 1) convert(h, (Number*)wave_operand(l), wave_pairs.data() + l * plane() / 2);
        }
        const float* h = wave(L - 1);
        for (int r = 0; r < STREAMS * R; r++)
            for (int k = 0; k < C; k++) {
                Aligned sum = {};
                for (int j = 0; j < W; j += LANES) sum += load(h + (size_t)r * W + j) * load(p.output_weight + k * W + j);
                float total = r < R ? p.output_bias[k] : 0.f;
                for (int i = 0; i < LANES; i++) total += sum[i];
                y[r * C + k] = total;
            }
    }

    // Gradients, from those of the outputs in `gy`, for the shifts (added to `shifts`) and, if asked for, all else.
    void backward(int n, float* shifts) {
        for (int r = 0; r < STREAMS * R; r++)
            for (int j = 0; j < W; j += LANES) {
                Aligned g = {};
                for (int k = 0; k < C; k++) g += gy[r * C + k] * load(p.output_weight + k * W + j);
                store(products.data() + (size_t)r * W + j, g);
            }
        float* hidden = learned.data();
        if constexpr (LEARN) {
            float* weight = hidden + (size_t)(L - 1) * W * W;
            const float* h = wave(L - 1);
            for (int k = 0; k < C; k++) {
                for (int j = 0; j < W; j += LANES) {
                    Aligned sum = load(weight + k * W + j);
                    for (int r = 0; r < STREAMS * R; r++) sum += gy[r * C + k] * load(h + (size_t)r * W + j);
                    store(weight + k * W + j, sum);
                }
                for (int r = 0; r < R; r++) weight[C * W + k] += gy[r * C + k];
            }
        }
        for (int l = L - 1; l >= 0; l--) {
            const float* h = wave(l);
            for (int r = 0; r < R; r++) {
                const size_t row = (size_t)r * W, kept = ((size_t)l * R + r) * W, other = (size_t)(R + r) * W;
                for (int j = 0; j < W; j += LANES) {
                    const Aligned cosine = load(cosines.data() + kept + j);
                    Aligned delta = load(products.data() + row + j) * cosine;
                    if constexpr (STREAMS == 2) {
                        const Aligned g = load(products.data() + other + j);
                        delta -= g * load(rates.data() + kept + j) * load(h + row + j);
                        store(deltas.data() + other + j, g * cosine);
                    }
                    store(deltas.data() + row + j, delta);
                    if (HALF && !LEARN) store_short((uint16_t*)delta_rows.data() + row + j, shorten(delta));
                }
            }
            if (p.neighbours == 1) {
                for (int r = 0; r < n;) {  // points that follow each other mostly share their cell
                    const size_t at = places[r] + (size_t)l * W;
                    int end = r + 1;
                    while (end < n && places[end] == places[r]) end++;
                    for (int j = 0; j < W; j += LANES) {
                        Aligned sum = load(shifts + at + j);
                        for (int i = r; i < end; i++) sum += load(deltas.data() + (size_t)i * W + j);
                        store(shifts + at + j, sum);
                    }
                    r = end;
                }
            } else {
                for (int r = 0; r < n; r++)
                    for (int k = 0; k < p.neighbours; k++) {
                        float* to = shifts + places[r * p.neighbours + k] + (size_t)l * W;
                        const float weight = p.weight[within[r] * p.neighbours + k];
                        for (int j = 0; j < W; j += LANES)
                            store(to + j, load(to + j) + weight * load(deltas.data() + (size_t)r * W + j));
                    }
            }
            if (l == 0) {
                if (LEARN)
                    for (int r = 0; r < n; r++) {
                        float* to = first + (size_t)within[r] * W;
                        for (int j = 0; j < W; j += LANES)
                            store(to + j, load(to + j) + load(deltas.data() + (size_t)r * W + j));
                    }
                continue;
            }
            const Number* rows;
            if constexpr (HALF) {
                if (LEARN) convert(deltas.data(), delta_rows.data(), delta_pairs.data());
                rows = delta_rows.data();
            } else {
                rows = deltas.data();
            }
            if constexpr (LEARN) {
                const Number *a, *b;
                if constexpr (HALF) {
                    a = delta_pairs.data();
                    b = wave_pairs.data() + (l - 1) * plane() / 2;
                } else {
                    a = deltas.data();
                    b = wave(l - 1);
                }
                float* to = hidden + (size_t)(l - 1) * W * W;
                for (int n = 0; n < W; n += TILE)
                    for (int m = 0; m < W; m += ROWS)
                        tile(STREAMS * R / (HALF ? 2 : 1), a + m, 1, W, b + n, W, to + (size_t)m * W + n, W, true);
            }
            multiply(rows, back.data() + (size_t)(l - 1) * W * W / (HALF ? 2 : 1));
        }
    }

    void run(const Flow& flow, long t0, int n, float* from_targets) {
        place(t0, n);
        forward(flow.direction);
        if (flow.values) std::copy(y.begin(), y.begin() + n * C, flow.values + t0 * C);
        if (!flow.shifts) return;
        std::fill(gy.begin(), gy.end(), 0.f);
        for (int i = 0; i < n * C; i++) {
            const long at = t0 * C + i;
            if constexpr (STREAMS == 1) {
                gy[i] = LEARN ? flow.from_values[at] : p.scale * (y[i] - p.targets[at]);
            } else {
                const float rate = p.scale * y[R * C + i];
                gy[i] = rate + flow.from_values[at];
                from_targets[at] = -rate;
                gy[R * C + i] = p.scale * (y[i] - p.targets[at]);
            }
        }
        backward(n, flow.shifts);
    }
};

// Panels of TILE columns, each with all rows (or pairs of rows) of the matrix (k, n) -> at(k, n).
template <class Number, class At>
static void pack(Number* to, int W, At at) {
    for (int n0 = 0; n0 < W; n0 += TILE)
        for (int k = 0; k < W; k += std::is_same<Number, Pair>::value ? 2 : 1)
            for (int n = n0; n < n0 + TILE; n++) {
                if constexpr (std::is_same<Number, Pair>::value) *to++ = round_bf16(at(k, n)) | round_bf16(at(k + 1, n)) << 16;
                else *to++ = at(k, n);
            }
}

template <class Number, int STREAMS, bool LEARN>
static void run(const Problem& p, const Flow& flow, Gradients* gradients) {
    const int L = p.layers, W = p.width, C = p.channels;
    const size_t square = (size_t)W * W / (std::is_same<Number, Pair>::value ? 2 : 1);
    std::vector<Number> ahead((L - 1) * square), back(flow.shifts ? (L - 1) * square : 0);
    for (int l = 0; l < L - 1; l++) {
        const float* v = p.hidden + (size_t)l * W * W;
        pack(ahead.data() + l * square, W, [&](int k, int n) { return v[(size_t)n * W + k]; });
        if (flow.shifts) pack(back.data() + l * square, W, [&](int k, int n) { return v[(size_t)k * W + n]; });
    }
    if (flow.shifts) std::fill(flow.shifts, flow.shifts + p.rows * p.cells * L * W, 0.f);
    const int block = W > 128 ? 32 : 64;
    const int threads = std::max<int64_t>(1, std::min<int64_t>(p.threads, p.rows));
    // A gradient of `first` for each thread would be the size of an image where a row is one. There the threads share one:
    // each takes another part of the points, for all its rows, before they all go on to their next part.
    const int64_t blocks = (p.points + block - 1) / block;
    const bool shares = LEARN && blocks >= 4 * threads;
    float* shared_first = shares ? gradients->first : nullptr;
    if (shares) std::fill(shared_first, shared_first + p.points * W, 0.f);
    std::vector<std::unique_ptr<Worker<Number, STREAMS, LEARN>>> workers(threads);
    std::atomic<bool> failed{false};
#pragma omp parallel num_threads(threads)
    {
        const int id = omp_get_thread_num(), count = omp_get_num_threads();
        try {
            workers[id] = std::make_unique<Worker<Number, STREAMS, LEARN>>(p, block, ahead, back, shared_first);
        } catch (const std::bad_alloc&) {  // must not leave the thread
            failed = true;
        }
#pragma omp barrier
        if (!failed) {
            const int64_t start = p.rows * id / count, stop = p.rows * (id + 1) / count;
            const auto run = [&](int64_t from, int64_t to) {
                for (int64_t t = from; t < to; t += block)
                    workers[id]->run(flow, t, std::min<int64_t>(block, to - t), gradients ? gradients->targets : nullptr);
            };
            if (shares) {
                for (int turn = 0; turn < count; turn++) {
                    const int part = (id + turn) % count;
                    const int64_t from = blocks * part / count * block;
                    const int64_t to = std::min<int64_t>(p.points, blocks * (part + 1) / count * block);
                    for (int64_t row = start; row < stop; row++) run(row * p.points + from, row * p.points + to);
#pragma omp barrier
                }
            } else {
                run(start * p.points, stop * p.points);
            }
            if constexpr (LEARN) {
#pragma omp barrier
                // Each thread adds up its part of the parameters, always in the same order.
                const size_t parts[] = {(size_t)(L - 1) * W * W, (size_t)C * W, (size_t)C, shares ? 0 : (size_t)p.points * W};
                float* outs[] = {gradients->hidden, gradients->output_weight, gradients->output_bias, gradients->first};
                size_t offset = 0;
                for (int part = 0; part < 4; part++) {
                    const size_t from = parts[part] * id / count, to = parts[part] * (id + 1) / count;
                    for (size_t i = from; i < to; i++) {
                        float sum = 0;
                        for (int w = 0; w < count; w++) sum += workers[w]->learned[offset + i];
                        outs[part][i] = sum;
                    }
                    offset += parts[part];
                }
            }
        }
    }
    if (failed) throw std::bad_alloc();
}

// Exceptions end here: the caller is no C++.
template <class Function>
static int status_of(Function function) {
    try {
        function();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

extern "C" {
int functa_has_bf16() { return HAS_BF16 ? 1 : 0; }

int functa_values(const Problem* p, float* values) {
    return status_of([&] { run<float, 1, false>(*p, {nullptr, nullptr, values, nullptr}, nullptr); });
}

int functa_values_backward(const Problem* p, const float* from_values, Gradients* to) {
    return status_of([&] { run<float, 1, true>(*p, {nullptr, from_values, nullptr, to->shifts}, to); });
}

int functa_gradient(const Problem* p, float* gradient, float* values) {
    return status_of([&] {
        const Flow flow{nullptr, nullptr, values, gradient};
        if (p->half) run<Pair, 1, false>(*p, flow, nullptr);
        else run<float, 1, false>(*p, flow, nullptr);
    });
}

int functa_gradient_backward(const Problem* p, const float* direction, const float* from_values, Gradients* to) {
    return status_of([&] {
        const Flow flow{direction, from_values, nullptr, to->shifts};
        if (p->half) run<Pair, 2, true>(*p, flow, to);
        else run<float, 2, true>(*p, flow, to);
    });
}
}
