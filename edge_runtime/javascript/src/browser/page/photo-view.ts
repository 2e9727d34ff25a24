/** The first step of the page: photos, sorted into the run's classes. */

import { labelOf } from "../../data/packing.js";
import type { ShownRun, SortedPhoto } from "../messages.js";
import { readPhoto, UnreadablePhotoError } from "../photos.js";
import { element, fileButton, picture } from "./dom.js";
import type { Texts } from "./texts/en.js";

export const LEAST_PHOTOS = 3;
const IMAGES = "image/*,.heic,.heif";

interface Photo {
  readonly id: number;
  readonly name: string;
  readonly pixels: Uint8Array;
  label: number | undefined;
}

/** Shows photos, and lets a person sort them. */
export class PhotoView {
  readonly root = element("section", { "aria-labelledby": "photos" });
  private readonly photos: Photo[] = [];
  private readonly troubles: string[] = [];
  private lastId = 0;
  private readonly status = element("p", { role: "status", tabindex: "-1" });
  private readonly lists = element("div");
  private readonly next: HTMLButtonElement;

  /** @param done Given the sorted photos when the person goes on. */
  constructor(
    private readonly run: ShownRun,
    private readonly texts: Texts,
    done: (photos: readonly SortedPhoto[]) => void,
  ) {
    this.next = element("button", { type: "button", class: "main", click: () => done(this.sorted()) }, texts.next);
    const add = (files: readonly File[]): void => void this.add(files, undefined);
    this.root.append(
      element("h2", { id: "photos" }, texts.photos),
      element("p", {}, texts.photosHow),
      element(
        "p",
        { class: "row" },
        fileButton(texts.addAny, { multiple: true, accept: IMAGES, "data-add": "any" }, add),
        fileButton(texts.addFolder, { webkitdirectory: true, "data-add": "folder" }, add),
      ),
      this.lists,
      this.status,
      this.next,
    );
    this.show();
  }

  private sorted(): SortedPhoto[] {
    return this.photos.flatMap(({ label, pixels }) => (label === undefined ? [] : [{ label, pixels }]));
  }

  private async add(files: readonly File[], label: number | undefined): Promise<void> {
    for (const file of files) {
      const folder = file.webkitRelativePath.split("/").at(-2);
      const named = folder === undefined ? undefined : labelOf(folder, this.run.classNames, new Map());
      try {
        const pixels = await readPhoto(file, this.run.imageSize, "crop");
        this.photos.push({ id: ++this.lastId, name: file.name, pixels, label: label ?? named });
      } catch (error) {
        if (!(error instanceof UnreadablePhotoError)) throw error;
        this.troubles.push(error.reason === "heic" ? this.texts.heic(file.name) : this.texts.unreadable(file.name));
      }
    }
    this.show();
  }

  private show(): void {
    const { classNames } = this.run;
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    const unsorted = this.photos.filter(({ label }) => label === undefined);
    this.lists.replaceChildren(
      ...(unsorted.length ? [this.list(this.texts.unsorted, undefined, unsorted)] : []),
      ...classNames.map((name, label) =>
        this.list(
          name,
          label,
          this.photos.filter((photo) => photo.label === label),
        ),
      ),
    );
    const num = this.sorted().length;
    const empty = classNames.filter((_, label) => !this.photos.some((photo) => photo.label === label));
    const lines = [this.texts.needed(num), ...this.troubles];
    if (num && empty.length) lines.push(this.texts.emptyClass(empty.join(", ")));
    this.status.replaceChildren(...lines.map((line) => element("span", { class: "line" }, line)));
    this.next.disabled = num < LEAST_PHOTOS;
    // What was made anew is where the keyboard was; what is gone has no place.
    if (focused) (this.lists.querySelector<HTMLElement>(`[data-key="${focused}"]`) ?? this.status).focus();
  }

  private list(name: string, label: number | undefined, photos: readonly Photo[]): HTMLElement {
    const box = element(
      "fieldset",
      {
        "data-class": name,
        dragover: (event) => event.preventDefault(),
        drop: (event) => this.dropped(event as DragEvent, label),
      },
      element("legend", {}, `${name} · ${this.texts.count(photos.length)}`),
    );
    if (label !== undefined) {
      const add = (files: readonly File[]): void => void this.add(files, label);
      const more = { multiple: true, accept: IMAGES, "data-add": String(label), "data-key": `add-${label}` };
      box.append(
        element(
          "p",
          { class: "row" },
          fileButton(this.texts.add(name), more, add),
          fileButton(
            this.texts.camera(name),
            { accept: "image/*", capture: "environment", "data-key": `camera-${label}` },
            add,
          ),
        ),
      );
    }
    box.append(element("ul", { class: "photos" }, ...photos.map((photo) => this.item(photo))));
    return box;
  }

  private item(photo: Photo): HTMLElement {
    const index = this.photos.indexOf(photo);
    const none = element("option", { value: "" }, "–");
    const select = element(
      "select",
      {
        "aria-label": `${this.texts.classOf}: ${photo.name}`,
        "data-key": `class-${photo.id}`,
        change: () => this.move(photo, select.value),
      },
      none,
      ...this.run.classNames.map((name, label) => element("option", { value: String(label) }, name)),
    );
    select.value = photo.label === undefined ? "" : String(photo.label);
    const remove = (): void => {
      this.photos.splice(this.photos.indexOf(photo), 1);
      this.show();
    };
    return element(
      "li",
      {
        draggable: "true",
        dragstart: (event) => (event as DragEvent).dataTransfer?.setData("text/plain", `photo-${index}`),
      },
      picture(photo.pixels, this.run.imageSize, photo.name),
      select,
      element(
        "button",
        {
          type: "button",
          "aria-label": `${this.texts.remove}: ${photo.name}`,
          "data-key": `remove-${photo.id}`,
          click: remove,
        },
        "×",
      ),
    );
  }

  private move(photo: Photo, value: string): void {
    photo.label = value === "" ? undefined : Number(value);
    this.show();
  }

  private dropped(event: DragEvent, label: number | undefined): void {
    event.preventDefault();
    const files = [...(event.dataTransfer?.files ?? [])];
    const photo = this.photos[Number(/^photo-(\d+)$/.exec(event.dataTransfer?.getData("text/plain") ?? "")?.[1])];
    if (files.length) void this.add(files, label);
    else if (photo) this.move(photo, label === undefined ? "" : String(label));
  }
}
