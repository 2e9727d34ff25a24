/** Numbers as numpy and Python have them: rounding, half precision, the text of a float. */

/** Round to the nearest whole number, halves to the even one, as `numpy.rint` does. */
export function roundHalfEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

const floatView = new Float32Array(1);
const bitsView = new Uint32Array(floatView.buffer);

/** Give the bits of the float16 that is nearest to a float32, ties to even. */
export function toHalf(value: number): number {
  floatView[0] = value;
  const bits = bitsView[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = (bits >>> 23) & 0xff;
  let mantissa = bits & 0x7fffff;
  if (exponent === 0xff) return sign | 0x7c00 | (mantissa ? 0x200 | (mantissa >>> 13) : 0);
  let half = exponent - 112;
  if (half >= 0x1f) return sign | 0x7c00;
  let shift = 13;
  if (half <= 0) {
    if (half < -10) return sign;
    // A subnormal of float16: the hidden one becomes part of the mantissa.
    mantissa |= 0x800000;
    shift = 14 - half;
    half = 0;
  }
  const kept = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  const middle = 1 << (shift - 1);
  const rounded = rest > middle || (rest === middle && kept & 1) ? kept + 1 : kept;
  // What is rounded up beyond the mantissa goes on into the exponent.
  return sign | ((half << 10) + rounded);
}

/** Give the number that bits of a float16 stand for. */
export function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 0x1f) return mantissa ? NaN : sign * Infinity;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

/** Write a finite float as Python's `repr` does: the shortest digits that read back as the same number. */
export function pythonFloat(value: number): string {
  if (Object.is(value, -0)) return "-0.0";
  const [digits, power] = value.toExponential().split("e");
  const exponent = Number(power);
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    return `${digits}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const text = exponent < 0 && value !== 0 ? value.toFixed(Math.min(100, fraction(digits) - exponent)) : String(value);
  return /[.]/.test(text) ? text : `${text}.0`;
}

function fraction(digits: string): number {
  return (digits.split(".")[1] ?? "").length;
}

/** Write a number with so many significant digits, as Python's `:g` does for numbers of a usual size. */
export function general(value: number, digits = 6): string {
  return String(Number(value.toPrecision(digits)));
}

/** Write a whole number with commas between thousands. */
export function grouped(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** Find the place of the greatest value of a row, the first of equal ones. */
export function argmax(values: ArrayLike<number>, begin: number, end: number): number {
  let best = begin;
  for (let index = begin + 1; index < end; index++) if (values[index] > values[best]) best = index;
  return best - begin;
}

/** Say whether all values are finite. */
export function allFinite(values: Float32Array): boolean {
  for (let index = 0; index < values.length; index++) if (!Number.isFinite(values[index])) return false;
  return true;
}
