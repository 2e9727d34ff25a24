/** Making elements, without a framework. */

type Child = Node | string | undefined | false;
type Attributes = Readonly<Record<string, string | boolean | ((event: Event) => void) | undefined>>;

/** Make an element; attributes that are functions listen, false and undefined are left out. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== false));
  return made;
}

/** Make a button that looks like one and chooses files. */
export function fileButton(
  text: string,
  attributes: Attributes,
  chosen: (files: readonly File[]) => void,
): HTMLLabelElement {
  const input = element("input", {
    type: "file",
    class: "hidden-input",
    ...attributes,
    change: () => {
      chosen([...(input.files ?? [])]);
      // The same file again is another choice.
      input.value = "";
    },
  });
  return element("label", { class: "button" }, text, input);
}

/** Draw pixels `[S, S, 3]`. */
export function picture(pixels: Uint8Array, size: number, text: string): HTMLCanvasElement {
  const canvas = element("canvas", { width: String(size), height: String(size), role: "img", "aria-label": text });
  const image = new ImageData(size, size);
  for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
    image.data.set([pixels[from], pixels[from + 1], pixels[from + 2], 255], to);
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
  return canvas;
}

/** Make pixels of planes `[3, S, S]` in 0..1. */
export function pixelsOf(planes: Float32Array, size: number): Uint8Array {
  const area = size * size;
  return Uint8Array.from({ length: 3 * area }, (_, index) =>
    Math.round(255 * planes[(index % 3) * area + Math.floor(index / 3)]),
  );
}
