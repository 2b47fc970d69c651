// The field's heavy part on a CPU: values of the SIREN, gradients for its shifts, and what differentiates both.
//
// A point's activations never leave the cache: each thread takes the points in small blocks and runs all layers of a
// block, forwards and backwards, before it goes on to the next. For the backward pass two numbers are kept for each unit of a
// layer, which save two products of six; where there is no room for them, the block is run again.
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
#include <immintrin.h>
#endif

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
constexpr bool HAS_BF16 = true;
// Two vectors as bfloat16, one after the other, and value by value as pairs.
static inline __m512i halves(Aligned first, Aligned second) {
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
}
static inline void store_halves(void* to, Aligned first, Aligned second) { _mm512_storeu_si512(to, halves(first, second)); }
static inline void store_pairs(Pair* to, Aligned low, Aligned high) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20,
                                           4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(order, halves(low, high)));
}
static inline Aligned multiply_add(Aligned sum, Pair a, const Pair* b) {
    return (Aligned)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)_mm512_loadu_si512(b));
}
#else
constexpr bool HAS_BF16 = false;
static inline void store_halves(void*, Aligned, Aligned) { abort(); }
static inline void store_pairs(Pair*, Aligned, Aligned) { abort(); }
static inline Aligned multiply_add(Aligned sum, Pair, const Pair*) { abort(); return sum; }
#endif
static inline Aligned multiply_add(Aligned sum, float a, const float* b) { return sum + a * load(b); }

// All loops over a tile are unrolled, so that its numbers stay in registers.
typedef Aligned Tile[ROWS][VECTORS];
#define EACH_ROW _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++)
#define EACH_VECTOR _Pragma("GCC unroll 2") for (int j = 0; j < VECTORS; j++)
#define INLINE inline __attribute__((always_inline))

// C += A B over `depth`; A's element (i, k) is a[i * row + k * step], B's row k starts at b + k * next.
template <class Number>
static INLINE void multiply_add(Tile& c, int depth, const Number* a, long row, long step, const Number* b, long next) {
    Tile sum;
    EACH_ROW EACH_VECTOR sum[i][j] = c[i][j];
    for (int k = 0; k < depth; k++) {
        EACH_ROW EACH_VECTOR sum[i][j] = multiply_add(sum[i][j], a[i * row + k * step], b + k * next + j * LANES);
    }
    EACH_ROW EACH_VECTOR c[i][j] = sum[i][j];
}

static INLINE void load(Tile& t, const float* from, long row) {
    EACH_ROW EACH_VECTOR t[i][j] = load(from + i * row + j * LANES);
}
static INLINE void store(float* to, long row, const Tile& t) {
    EACH_ROW EACH_VECTOR store(to + i * row + j * LANES, t[i][j]);
}

// Past the caches, as it is read much later: a register tile's row of `GRADIENTS`, or of `PHASES` in radians.
// With half as many bits gradients are bfloat16, and phases are counted in 65536 parts of a turn.
enum Kept { PHASES, GRADIENTS };
constexpr float PARTS = 10430.378350470453f;  // of a radian

template <Kept KEPT>
static INLINE void keep(float* to, Aligned first, Aligned second) {
#if defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)first);
    _mm512_stream_ps(to + LANES, (__m512)second);
#else
    store(to, first);
    store(to + LANES, second);
#endif
}
// Before another thread may read what was kept.
static inline void settle() {
#if defined(__AVX512F__)
    _mm_sfence();
#endif
}
template <Kept KEPT>
static INLINE void recall(const float* from, Aligned& first, Aligned& second) {
    first = load(from);
    second = load(from + LANES);
}
#if defined(__AVX512BF16__)
template <Kept KEPT>
static INLINE void keep(uint16_t* to, Aligned first, Aligned second) {
    __m512i row;
    if constexpr (KEPT == GRADIENTS) {
        row = halves(first, second);
    } else {
        const __m512i low = _mm512_cvtps_epi32((__m512)(first * PARTS)), high = _mm512_cvtps_epi32((__m512)(second * PARTS));
        const __m512i even = _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26, 24, 22,
                                              20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        row = _mm512_permutex2var_epi16(low, even, high);
    }
    _mm512_stream_si512((__m512i*)to, row);
}
template <Kept KEPT>
static INLINE Aligned lengthened(__m256i half) {
    if constexpr (KEPT == GRADIENTS) return (Aligned)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
    else return (Aligned)_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(half)) * (1 / PARTS);
}
template <Kept KEPT>
static INLINE void recall(const uint16_t* from, Aligned& first, Aligned& second) {
    first = lengthened<KEPT>(_mm256_loadu_si256((const __m256i*)from));
    second = lengthened<KEPT>(_mm256_loadu_si256((const __m256i*)from + 1));
}
#else
template <Kept KEPT>
static INLINE void keep(uint16_t*, Aligned, Aligned) { abort(); }
template <Kept KEPT>
static INLINE void recall(const uint16_t*, Aligned&, Aligned&) { abort(); }
#endif

static inline float sum_of(Aligned v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
#endif
}

constexpr float SHIFT = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, which stands in the lowest bits

// x itself where x is too large to have a fraction.
static inline Aligned nearest_integer(Aligned x) {
#if defined(__AVX512F__)
    return (Aligned)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const Aligned n = x + SHIFT - SHIFT, r = x - n;
    return r * r > 0.26f ? x : n;
#endif
}

// The highest coefficient first.
template <class... Floats>
static INLINE Aligned polynomial(Aligned u, float highest, Floats... others) {
    Aligned sum = Aligned{} + highest;
    ((sum = sum * u + others), ...);
    return sum;
}

// Sine and cosine in one pass, of n quarter turns and r, at most half a quarter turn. Polynomials: minimax.
//
// Either result is within 1e-7 up to |x| = 1000. r comes from Cody and Waite's reduction: pi/2 is a number of 8 bits, whose
// multiples are exact, and a remainder, so that x - n pi/2 is rounded once. HALF, for sines that are rounded to bfloat16 anyway:
// r is in quarter turns and rounded twice, and the polynomials have one degree less, a hundred times as accurate as bfloat16.
//
// Where |x| is so large that n is no longer exact, the results stay within [-1, 1]; NaN stays NaN.
template <bool HALF>
static INLINE void sine_cosine(Aligned x, Aligned& sine, Aligned& cosine) {
    const Aligned turns = x * 0.63661977236758134f, n = nearest_integer(turns);
    const Integers quadrant = (Integers)(n + SHIFT), sign = quadrant >> 1 << 31, odd = quadrant << 31 < 0;
    Aligned r, s, c;
    if constexpr (HALF) {
        r = turns - n;
    } else {
        r = x - n * 1.5703125f;
        r -= n * 4.838267948966e-4f;
        r = r * r > 1.f ? Aligned{} : r;
    }
    const Aligned u = r * r;
    r = (Aligned)((Integers)r ^ sign);
    if constexpr (HALF) {
        s = polynomial(u, 0.0776673928f, -0.645712018f, 1.5707885f);
        c = polynomial(u, 0.246499404f, -1.23314857f, 1.f);
    } else {
        s = polynomial(u, -0.000194933242f, 0.00833195661f, -0.166666502f, 1.f);
        c = polynomial(u, 2.44356701e-05f, -0.00138873399f, 0.0416666462f, -0.5f, 1.f);
    }
    s *= r;
    c = (Aligned)((Integers)c ^ sign);
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
    // What the functions without `_backward` keep of the first `kept_points` of all points, so that the others need not
    // compute it again: arguments of the layers 1 … L - 1, and for `gradient` the gradients of the sines 0 … L - 2 as well,
    // each (L - 1, kept_points, W).
    void* kept;
    int64_t kept_points;
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

enum Task { VALUES, VALUES_BACKWARD, GRADIENT, GRADIENT_BACKWARD };

// One thread's blocks of R points. Number: float, or Pair for bfloat16. What a product's tile is needed for is done while it is
// in registers: sines on the way forwards, the sines' derivatives on the way back.
template <class Number, Task TASK>
class Worker {
   public:
    static constexpr bool LEARN = TASK == VALUES_BACKWARD || TASK == GRADIENT_BACKWARD;  // gradients of all parameters

   private:
    static constexpr int STREAMS = TASK == GRADIENT_BACKWARD ? 2 : 1;  // 2: with tangents, whose rows follow the values'
    static constexpr bool HALF = std::is_same<Number, Pair>::value;
    static constexpr int IN_ONE = HALF ? 2 : 1;  // numbers in a Number
    using Brief = typename std::conditional<HALF, uint16_t, float>::type;  // what is kept
    const Problem& p;
    const int L, W, R, C;
    const std::vector<Number>&ahead, &back;  // packed weights of the hidden layers, for either direction
    // Of each layer (STREAMS * R, W): sines as the products take them, and in pairs of rows for the gradients of the weights.
    std::vector<Number> waves, wave_pairs;
    std::vector<float> top;                // the last layer's sines, if those are not floats
    std::vector<float> cosines, bends;     // of each layer (R, W); bends: -sine * rate, with the rate of the argument
    std::vector<Number> deltas, delta_pairs;  // gradients of the arguments, as `waves`, of this layer and the one above
    std::vector<float> mixed, y, gy;
    std::vector<size_t> places;  // of the block's points: where the shifts of their neighbours begin (R, neighbours)
    std::vector<int> within;     // position of each point in its row (R,)
    float* first = nullptr;      // gradient of the first layer's part (points, W)
    long start = 0;              // the block's first point
    int used = 0, kept = 0;      // how many points it has, and of how many of them there is something kept

    size_t plane() const { return (size_t)STREAMS * R * W; }
    Number* wave(int l) { return waves.data() + (!HALF && LEARN ? l : l & 1) * (plane() / IN_ONE); }
    Number* delta(int l) { return deltas.data() + (l & 1) * (plane() / IN_ONE); }
    float* last_wave() {
        if constexpr (HALF) return top.data();
        else return wave(L - 1);
    }
    float* cosine(int l, int r) { return cosines.data() + ((size_t)l * R + r) * W; }
    float* bend(int l, int r) { return bends.data() + ((size_t)l * R + r) * W; }

    // Rows m …, columns n … of `t` as the products take them.
    void put(const Tile& t, int m, int n, Number* rows, Number* pairs) {
        if constexpr (!HALF) {
            store(rows + (size_t)m * W + n, W, t);
        } else {
            EACH_ROW store_halves((uint16_t*)rows + (size_t)(m + i) * W + n, t[i][0], t[i][1]);
            if constexpr (LEARN) {
                _Pragma("GCC unroll 4") for (int i = 0; i < ROWS; i += 2)
                    EACH_VECTOR store_pairs(pairs + (size_t)(m + i) / 2 * W + n + j * LANES, t[i][j], t[i + 1][j]);
            }
        }
    }

    // Rows m … of `rows` times the panel of columns n ….
    void multiply(Tile& t, const Number* rows, const std::vector<Number>& packed, int l, int m, int n) {
        const int depth = W / IN_ONE;
        EACH_ROW EACH_VECTOR t[i][j] = Aligned{};
        multiply_add(t, depth, rows + (size_t)m * depth, depth, 1, packed.data() + ((size_t)l * W + n) * depth, TILE);
    }

    // The shift of layer l at row r; for several neighbours it stands in `mixed`.
    const float* shift(const float* shifts, const float* mixed, int l, int r) const {
        return p.neighbours == 1 ? shifts + places[r] + (size_t)l * W : mixed + (size_t)r * W;
    }

    void interpolate(const float* shifts, int l, float* into) const {
        if (p.neighbours == 1) return;
        for (int r = 0; r < R; r++, into += W) {
            const size_t* at = places.data() + r * p.neighbours;
            const float* weight = p.weight + within[r] * p.neighbours;
            for (int k = 0; k < p.neighbours; k++) {
                const float* from = shifts + at[k] + (size_t)l * W;
                for (int j = 0; j < W; j += LANES)
                    store(into + j, k > 0 ? load(into + j) + weight[k] * load(from + j) : weight[k] * load(from + j));
            }
        }
    }

    void keep_waves(const Tile& t, int l, int m, int n) {
        if (HALF && l == L - 1) store(top.data() + (size_t)m * W + n, W, t);
        else put(t, m, n, wave(l), HALF && LEARN ? wave_pairs.data() + l * (plane() / 2) : nullptr);
    }

    Brief* kept_at(Kept what, int l, int m, int n) const {
        return (Brief*)p.kept + (((size_t)what * (L - 1) + l) * p.kept_points + start + m) * W + n;
    }

    template <Kept KEPT>
    void keep_tile(const Tile& t, int l, int m, int n) const {
        Brief* to = kept_at(KEPT, l, m, n);
        EACH_ROW if (m + i < kept) keep<KEPT>(to + (size_t)i * W, t[i][0], t[i][1]);
    }

    // Zeros in the rows beyond the block's points. The next tile is fetched meanwhile.
    template <Kept KEPT>
    void recall_tile(Tile& t, int l, int m, int n) const {
        const Brief* from = kept_at(KEPT, l, m, n);
        const Brief* next = m + ROWS < R ? from + (size_t)ROWS * W : from - (size_t)m * W + TILE;
        EACH_ROW for (int j = 0; j < TILE; j += 64 / sizeof(Brief)) __builtin_prefetch(next + (size_t)i * W + j);
        EACH_ROW {
            if (m + i < used) recall<KEPT>(from + (size_t)i * W, t[i][0], t[i][1]);
            else EACH_VECTOR t[i][j] = Aligned{};
        }
    }

    bool recalls() const { return LEARN && kept == used; }

    // Arguments of the sines.
    void arguments(Tile& t, int l, int m, int n) {
        if (l > 0 && recalls()) return recall_tile<PHASES>(t, l - 1, m, n);
        if (l > 0) multiply(t, wave(l - 1), ahead, l - 1, m, n);
        else EACH_ROW EACH_VECTOR t[i][j] = load(p.first + (size_t)within[m + i] * W + n + j * LANES);
        EACH_ROW {
            const float* s = shift(p.shifts, mixed.data(), l, m + i) + n;
            EACH_VECTOR t[i][j] += load(s + j * LANES);
        }
        if (!LEARN && l > 0 && m < kept) keep_tile<PHASES>(t, l - 1, m, n);
    }

    void bend_values(Tile& t, int l, int m, int n) {
        EACH_ROW {
            EACH_VECTOR {
                Aligned c;
                sine_cosine<HALF>(t[i][j], t[i][j], c);
                if (TASK != VALUES) store(cosine(l, m + i) + n + j * LANES, c);
                if (STREAMS == 2) store(bend(l, m + i) + n + j * LANES, t[i][j]);
            }
        }
        keep_waves(t, l, m, n);
    }

    // Tangents of the sines, from those of the arguments without the shift's.
    void bend_tangents(Tile& t, const float* direction, int l, int m, int n) {
        EACH_ROW {
            const float* s = shift(direction, mixed.data() + (size_t)R * W, l, m + i) + n;
            EACH_VECTOR {
                float* at = bend(l, m + i) + n + j * LANES;
                const Aligned rate = t[i][j] + load(s + j * LANES);
                store(at, -load(at) * rate);
                t[i][j] = load(cosine(l, m + i) + n + j * LANES) * rate;
            }
        }
        keep_waves(t, l, R + m, n);
    }

    // Values (and tangents) of the block.
    void forward(const float* direction) {
        for (int l = 0; l < L; l++) {
            interpolate(p.shifts, l, mixed.data());
            if (STREAMS == 2) interpolate(direction, l, mixed.data() + (size_t)R * W);
            for (int n = 0; n < W; n += TILE)
                for (int m = 0; m < R; m += ROWS) {
                    Tile t;
                    arguments(t, l, m, n);
                    bend_values(t, l, m, n);
                    if constexpr (STREAMS == 2) {
                        if (l == 0) EACH_ROW EACH_VECTOR t[i][j] = Aligned{};
                        else multiply(t, wave(l - 1), ahead, l - 1, R + m, n);
                        bend_tangents(t, direction, l, m, n);
                    }
                }
        }
        const float* h = last_wave();
        for (int r = 0; r < STREAMS * R; r++)
            for (int k = 0; k < C; k++) {
                Aligned sum = {};
                for (int j = 0; j < W; j += LANES) sum += load(h + (size_t)r * W + j) * load(p.output_weight + k * W + j);
                y[r * C + k] = (r < R ? p.output_bias[k] : 0.f) + sum_of(sum);
            }
    }

    // The output layer's gradients, from those of the outputs in `gy`.
    void learn_output() {
        float* weight = learned.data() + (size_t)(L - 1) * W * W;
        const float* h = last_wave();
        for (int k = 0; k < C; k++) {
            for (int j = 0; j < W; j += LANES) {
                Aligned sum = load(weight + k * W + j);
                for (int r = 0; r < STREAMS * R; r++) sum += gy[r * C + k] * load(h + (size_t)r * W + j);
                store(weight + k * W + j, sum);
            }
            for (int r = 0; r < R; r++) weight[C * W + k] += gy[r * C + k];
        }
    }

    // Those of the weights between the layers l - 1 and l.
    void learn_hidden(int l) {
        const Number *a = delta(l), *b = wave(l - 1);
        if constexpr (HALF) a = delta_pairs.data(), b = wave_pairs.data() + (l - 1) * (plane() / 2);
        float* to = learned.data() + (size_t)(l - 1) * W * W;
        for (int n = 0; n < W; n += TILE)
            for (int m = 0; m < W; m += ROWS) {
                Tile t;
                load(t, to + (size_t)m * W + n, W);
                // What is next, as all of it is too much for the nearer caches.
                EACH_ROW EACH_VECTOR __builtin_prefetch(to + (size_t)(m + ROWS + i) * W + n + j * LANES, 1);
                multiply_add(t, STREAMS * R / IN_ONE, a + m, 1, W, b + n, W);
                store(to + (size_t)m * W + n, W, t);
            }
    }

    // Gradients of the last layer's sines, rows m …, columns n ….
    void from_output(Tile& t, int m, int n) {
        EACH_ROW {
            EACH_VECTOR t[i][j] = Aligned{};
            for (int k = 0; k < C; k++)
                EACH_VECTOR t[i][j] += gy[(m + i) * C + k] * load(p.output_weight + (size_t)k * W + n + j * LANES);
        }
    }

    void add_to_shifts(const Tile& t, float* shifts, int l, int m, int n) {
        const size_t layer = (size_t)l * W + n;
        if (p.neighbours == 1 && places[m] == places[m + ROWS - 1]) {  // points that follow each other mostly share their cell
            EACH_VECTOR {
                float* to = shifts + places[m] + layer + j * LANES;
                Aligned sum = load(to);
                EACH_ROW sum += t[i][j];
                store(to, sum);
            }
            return;
        }
        EACH_ROW {
            const float* weight = p.weight + within[m + i] * p.neighbours;
            for (int k = 0; k < p.neighbours; k++) {
                float* to = shifts + places[(m + i) * p.neighbours + k] + layer;
                EACH_VECTOR store(to + j * LANES, load(to + j * LANES) + weight[k] * t[i][j]);
            }
        }
    }

    // Gradients, from those of the outputs in `gy`, for the shifts (added to `shifts`) and, if asked for, all else. Rows
    // beyond the block's points have none.
    void backward(float* shifts) {
        if constexpr (LEARN) learn_output();
        for (int l = L - 1; l >= 0; l--) {
            const auto from_above = [&](Tile& t, int m, int n) {
                if (l == L - 1) from_output(t, m, n);
                else if (STREAMS == 2 && m >= R && recalls()) recall_tile<GRADIENTS>(t, l, m - R, n);
                else multiply(t, delta(l + 1), back, l, m, n);
                if (TASK == GRADIENT && l < L - 1 && m < kept) keep_tile<GRADIENTS>(t, l, m, n);
            };
            Number* pairs = delta_pairs.data();
            for (int n = 0; n < W; n += TILE)
                for (int m = 0; m < R; m += ROWS) {
                    Tile t;
                    if constexpr (STREAMS == 2) {
                        from_above(t, R + m, n);
                        EACH_ROW EACH_VECTOR {
                            float* at = bend(l, m + i) + n + j * LANES;
                            store(at, load(at) * t[i][j]);
                            t[i][j] *= load(cosine(l, m + i) + n + j * LANES);
                        }
                        if (l > 0) put(t, R + m, n, delta(l), pairs);
                    }
                    from_above(t, m, n);
                    EACH_ROW EACH_VECTOR {
                        t[i][j] *= load(cosine(l, m + i) + n + j * LANES);
                        if (STREAMS == 2) t[i][j] += load(bend(l, m + i) + n + j * LANES);
                    }
                    add_to_shifts(t, shifts, l, m, n);
                    if (l > 0) put(t, m, n, delta(l), pairs);
                    else if (LEARN)
                        EACH_ROW EACH_VECTOR {
                            float* to = first + (size_t)within[m + i] * W + n + j * LANES;
                            store(to, load(to) + t[i][j]);
                        }
                }
            if constexpr (LEARN)
                if (l > 0) learn_hidden(l);
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

   public:
    std::vector<float> learned;  // gradients of hidden, output weight, output bias, and of first unless it is shared

    Worker(const Problem& p, int R, const std::vector<Number>& ahead, const std::vector<Number>& back, float* shared_first)
        : p(p), L(p.layers), W(p.width), R(R), C(p.channels), ahead(ahead), back(back) {
        waves.resize((!HALF && LEARN ? L : 2) * (plane() / IN_ONE));
        if (HALF) top.resize(plane());
        if (HALF && LEARN) wave_pairs.resize((L - 1) * (plane() / 2));
        if (TASK != VALUES) {
            cosines.resize((size_t)L * R * W);
            deltas.resize(2 * (plane() / IN_ONE));
        }
        if (STREAMS == 2) bends.resize((size_t)L * R * W);
        if (HALF && LEARN) delta_pairs.resize(plane() / 2);
        if (p.neighbours > 1) mixed.resize(plane());
        y.resize((size_t)STREAMS * R * C);
        gy.resize((size_t)STREAMS * R * C);
        places.resize((size_t)R * p.neighbours);
        within.resize(R);
        if (LEARN) {
            const size_t others = (size_t)(L - 1) * W * W + (size_t)C * W + C;
            learned.resize(others + (shared_first ? 0 : p.points * W));
            first = shared_first ? shared_first : learned.data() + others;
        }
    }

    // The block of points t0 … t0 + n - 1.
    void run(const Flow& flow, long t0, int n, float* from_targets) {
        place(t0, n);
        start = t0;
        used = n;
        kept = std::max<int64_t>(0, std::min<int64_t>(n, p.kept_points - t0));
        forward(flow.direction);
        if (flow.values) std::copy(y.begin(), y.begin() + n * C, flow.values + t0 * C);
        if constexpr (TASK != VALUES) {
            std::fill(gy.begin(), gy.end(), 0.f);
            for (int i = 0; i < n * C; i++) {
                const long at = t0 * C + i;
                if constexpr (TASK == VALUES_BACKWARD) {
                    gy[i] = flow.from_values[at];
                } else if constexpr (TASK == GRADIENT) {
                    gy[i] = p.scale * (y[i] - p.targets[at]);
                } else {
                    const float rate = p.scale * y[R * C + i];
                    gy[i] = rate + flow.from_values[at];
                    from_targets[at] = -rate;
                    gy[R * C + i] = p.scale * (y[i] - p.targets[at]);
                }
            }
            backward(flow.shifts);
        }
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

template <class Number, Task TASK>
static void run(const Problem& p, const Flow& flow, Gradients* gradients) {
    constexpr bool LEARN = Worker<Number, TASK>::LEARN;
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
    std::vector<std::unique_ptr<Worker<Number, TASK>>> workers(threads);
    std::atomic<bool> failed{false};
#pragma omp parallel num_threads(threads)
    {
        const int id = omp_get_thread_num(), count = omp_get_num_threads();
        try {
            workers[id] = std::make_unique<Worker<Number, TASK>>(p, block, ahead, back, shared_first);
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
            settle();
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
    return status_of([&] { run<float, VALUES>(*p, {nullptr, nullptr, values, nullptr}, nullptr); });
}

int functa_values_backward(const Problem* p, const float* from_values, Gradients* to) {
    return status_of([&] { run<float, VALUES_BACKWARD>(*p, {nullptr, from_values, nullptr, to->shifts}, to); });
}

int functa_gradient(const Problem* p, float* gradient, float* values) {
    return status_of([&] {
        const Flow flow{nullptr, nullptr, values, gradient};
        if (p->half) run<Pair, GRADIENT>(*p, flow, nullptr);
        else run<float, GRADIENT>(*p, flow, nullptr);
    });
}

int functa_gradient_backward(const Problem* p, const float* direction, const float* from_values, Gradients* to) {
    return status_of([&] {
        const Flow flow{direction, from_values, nullptr, to->shifts};
        if (p->half) run<Pair, GRADIENT_BACKWARD>(*p, flow, to);
        else run<float, GRADIENT_BACKWARD>(*p, flow, to);
    });
}
}
