/** Text of others, as it may go to a terminal, a log or a page; the rules of `gkt_core/printable.py`. */

const HIDDEN = /[\p{C}\u2028\u2029]/gu;

/** Escape what would move a cursor or turn a line round; everything that is to be seen stays as it is. */
export function printable(text: string): string {
  return text.replace(HIDDEN, escaped);
}

/** Say whether nothing of a text would be escaped. */
export function isPrintable(text: string): boolean {
  return printable(text) === text;
}

/** Cut to so many characters, as Python counts them: code points. */
export function cut(text: string, longest: number): string {
  return text.length <= longest ? text : [...text].slice(0, longest).join("");
}

/** Write a name from a file as Python's `ascii()` does: in quotes, everything else than ASCII escaped. */
export function shownAscii(text: string, longest = 60): string {
  const inner = [...cut(text, longest)].map((each) => (/[ -~]/.test(each) && each !== "\\" ? each : escaped(each)));
  return `'${inner.join("").replaceAll("'", "\\'")}'`;
}

function escaped(character: string): string {
  const named: Record<string, string> = { "\t": "\\t", "\n": "\\n", "\r": "\\r", "\\": "\\\\" };
  const code = character.codePointAt(0) ?? 0;
  if (named[character] !== undefined) return named[character];
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, "0")}` : `\\U${code.toString(16).padStart(8, "0")}`;
}
