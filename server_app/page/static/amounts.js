// Bytes, durations and shares as a person reads them; as gkt status writes them.

const BYTES = ["B", "kB", "MB", "GB", "TB"];

export function asBytes(number) {
  let unit = 0;
  while (number >= 999.5 && unit < BYTES.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number.toFixed(!unit || number >= 99.5 ? 0 : 1)} ${BYTES[unit]}`;
}

export function asDuration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86400) return two(Math.round(whole / 60), 60, "h", 1, "min");
  return two(Math.round(whole / 3600), 24, whole >= 1.98 * 86400 ? "days" : "day", 1, "h");
}

function two(number, size, name, restSize, restName) {
  const rest = number % size;
  return `${Math.floor(number / size)} ${name}${rest ? ` ${Math.floor(rest / restSize)} ${restName}` : ""}`;
}

export function asAgo(seconds) {
  return seconds < 0 ? "never" : `${asDuration(seconds)} ago`;
}

export function asShare(share) {
  return share < 0 ? "–" : `${(100 * share).toFixed(1)} %`;
}

export function asLoss(loss) {
  return loss < 0 ? "–" : loss.toFixed(loss < 10 ? 3 : 1);
}
