/** The page at `/join`: leads a person through joining, and talks to the worker that is the device. */

import { GKTError } from "../../errors.js";
import { watchConditions, WakeLock, type Obstacle } from "../conditions.js";
import type { Request, ShownRun, SortedPhoto, Told } from "../messages.js";
import { DoneView } from "./done-view.js";
import { element } from "./dom.js";
import { GuardsView } from "./guards-view.js";
import { beginning, forgetPlace, fromLink, OtherServerError, type Beginning } from "./links.js";
import { PhotoView } from "./photo-view.js";
import { previewView } from "./preview-view.js";
import { de } from "./texts/de.js";
import { en, type Texts } from "./texts/en.js";
import { TrainingView } from "./training-view.js";

/** Names of the other files, put in by the build. */
declare const WORKER: string;
declare const SERVICE_WORKER: string;

const LANGUAGES: Readonly<Record<string, Texts>> = { en, de };
const LANGUAGE = "gkt-language";

/** The page. */
class Page {
  private readonly language = localStorage.getItem(LANGUAGE) ?? navigator.language.slice(0, 2).toLowerCase();
  private readonly texts = LANGUAGES[this.language] ?? en;
  private readonly main = element("main", { tabindex: "-1" });
  private readonly wakeLock = new WakeLock();
  private worker: Worker | undefined;
  private begun: Beginning | undefined;
  private run!: ShownRun;
  private training: TrainingView | undefined;
  private done: DoneView | undefined;
  private photos: PhotoView | undefined;
  private guards: GuardsView | undefined;
  private obstacle: Obstacle | undefined;
  private last: Request | undefined;

  start(): void {
    document.documentElement.lang = LANGUAGES[this.language] ? this.language : "en";
    document.title = this.texts.title;
    document.body.replaceChildren(this.header(), this.main);
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden" && this.training) this.worker?.postMessage({ kind: "save" });
    });
    void watchConditions((obstacle) => {
      this.obstacle = obstacle;
      this.training?.obstacle(obstacle);
    });
    // Refused where the browser does not trust the server's certificate: the page works all the same.
    void navigator.serviceWorker?.register(SERVICE_WORKER, { scope: "join" }).catch(() => undefined);
    this.begin(beginning);
  }

  private header(): HTMLElement {
    const select = element(
      "select",
      {
        "aria-label": this.texts.language,
        change: () => {
          localStorage.setItem(LANGUAGE, select.value);
          location.reload();
        },
      },
      element("option", { value: "en" }, "English"),
      element("option", { value: "de" }, "Deutsch"),
    );
    select.value = document.documentElement.lang;
    return element("header", {}, element("h1", {}, this.texts.title), select, element("p", {}, this.texts.explain));
  }

  private begin(find: () => Beginning | undefined): void {
    try {
      this.begun = find();
    } catch (error) {
      if (!(error instanceof GKTError)) throw error;
      this.askForLink(error);
      return;
    }
    if (!this.begun) return this.askForLink();
    this.show(element("p", { role: "status" }, this.texts.opening));
    this.restart();
  }

  /** Start a worker, and let it look at the run. */
  private restart(): void {
    if (!this.begun) return this.askForLink();
    this.worker?.terminate();
    this.worker = new Worker(WORKER, { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<Told>) => this.hear(data);
    this.worker.onerror = (event) => this.failed([], event.message || "the worker cannot be loaded");
    this.ask({ kind: "open", ...this.begun });
  }

  private askForLink(error?: GKTError): void {
    const { texts } = this;
    const input = element("input", { type: "text", autocomplete: "off", spellcheck: "false" });
    const form = element(
      "form",
      {
        submit: (event) => {
          event.preventDefault();
          this.begin(() => fromLink(input.value));
        },
      },
      element("p", {}, texts.noLink),
      element("p", {}, element("label", {}, `${texts.link} `, input)),
      element("button", { class: "main" }, texts.openLink),
    );
    if (error instanceof OtherServerError) {
      form.append(
        element(
          "p",
          { role: "alert" },
          `${texts.otherServer} `,
          element("a", { href: error.page }, new URL(error.page).host),
        ),
      );
    } else if (error) form.append(element("p", { role: "alert", lang: "en" }, error.message));
    this.show(form);
  }

  private hear(told: Told): void {
    switch (told.kind) {
      case "opened":
        this.run = told.run;
        if (told.kept.hasModel) return this.finished(undefined);
        if (told.kept.hasPhotos && told.kept.hasConsent) return this.train();
        return told.kept.hasPhotos ? this.preview([]) : this.choose();
      case "previewed": {
        const done = { agreed: () => this.train(), back: () => this.choose() };
        return this.show(previewView(told.preview, this.run, this.texts, document.documentElement.lang, done));
      }
      case "finished":
        void this.wakeLock.letGo();
        this.training = undefined;
        return this.finished(told.result);
      case "classified":
        return this.done?.classified(told.scores);
      case "forgotten":
        forgetPlace();
        this.worker?.terminate();
        return this.show(element("p", { role: "status" }, this.texts.forgotten));
      case "failed":
        return this.failed(told.kinds, told.message);
      default:
        return this.training?.hear(told);
    }
  }

  private choose(): void {
    this.photos ??= new PhotoView(this.run, this.texts, (photos) => this.preview(photos));
    this.guards ??= new GuardsView(this.texts);
    const { numDevices, rounds } = this.run;
    this.show(element("p", {}, this.texts.run(numDevices, rounds)), this.photos.root, this.guards.root);
  }

  private preview(photos: readonly SortedPhoto[]): void {
    this.show(element("p", { role: "status" }, this.texts.working));
    this.ask({ kind: "pack", photos, guards: this.guards?.values() });
  }

  private train(): void {
    this.training = new TrainingView(this.run, this.texts, (request) => this.worker?.postMessage(request));
    this.show(this.training.root, this.forgetButton());
    this.training.obstacle(this.obstacle);
    void this.wakeLock.hold();
    // Or the browser may throw it away when others need room.
    void navigator.storage?.persist?.();
    this.ask({ kind: "go" });
  }

  private finished(result: Extract<Told, { kind: "finished" }>["result"] | undefined): void {
    this.done = new DoneView(result, this.run, this.texts, (request) => this.ask(request));
    this.show(this.done.root, this.forgetButton());
  }

  private forgetButton(): HTMLElement {
    const forget = (): void => {
      if (confirm(this.texts.forgetSure)) this.ask({ kind: "forget" });
    };
    return element("p", {}, element("button", { type: "button", class: "quiet", click: forget }, this.texts.forget));
  }

  private failed(kinds: readonly string[], message: string): void {
    void this.wakeLock.letGo();
    const { texts, last } = this;
    const kind = kinds.find((each) => Object.hasOwn(texts.troubles, each));
    const again = (): void => {
      this.training = undefined;
      if (last?.kind === "pack" && this.photos) this.choose();
      else this.restart();
    };
    this.show(
      element(
        "section",
        { role: "alert" },
        element("h2", {}, texts.trouble),
        element("p", {}, kind === undefined ? texts.unforeseen : texts.troubles[kind]),
        element("p", { lang: "en", class: "message" }, message),
        element("button", { type: "button", class: "main", click: again }, texts.again),
      ),
      this.forgetButton(),
    );
  }

  private ask(request: Request): void {
    this.last = request;
    this.worker?.postMessage(request);
  }

  /** Show a step, and lead keyboard and screen reader to it. */
  private show(...children: readonly Node[]): void {
    this.main.replaceChildren(...children);
    this.main.focus();
  }
}

new Page().start();
