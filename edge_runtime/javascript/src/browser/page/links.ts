/** Which run the page is for: its link, kept out of the address bar, and where its state lies. */

import { ConfigError } from "../../errors.js";
import { readJoinLink } from "../../wire/join-link.js";

const PLACE = "gkt-place";

/** What the page begins with. */
export interface Beginning {
  readonly link: string | undefined;
  /** Name of the database of the run. */
  readonly place: string;
}

/**
 * Read the address of the page, and take the secret out of it: it would stand in the history, and in every screenshot.
 *
 * @returns Undefined where there is no link, and none was here before.
 * @throws ConfigError The link is cut short, or another server's.
 */
export function beginning(): Beginning | undefined {
  if (location.hash.startsWith("#enroll=")) {
    const link = location.href;
    const begun = fromLink(link);
    history.replaceState(null, "", location.pathname);
    return begun;
  }
  const place = localStorage.getItem(PLACE);
  return place ? { link: undefined, place } : undefined;
}

/** A link is another server's, whose page has to be opened. */
export class OtherServerError extends ConfigError {
  constructor(
    message: string,
    readonly page: string,
  ) {
    super(message);
  }
}

/**
 * Begin with a link in either form.
 *
 * @throws ConfigError It is none.
 * @throws OtherServerError It is another server's.
 */
export function fromLink(link: string): Beginning {
  const { url, bundleSha256 } = readJoinLink(link);
  const here = location.href.replace(/\/join\/?([?#].*)?$/, "");
  const page = `${url}/join#${link.slice(link.indexOf("#") + 1)}`;
  if (new URL(url).href !== new URL(here).href) throw new OtherServerError("another server's link", page);
  const place = `gkt-${bundleSha256.slice(0, 16)}`;
  localStorage.setItem(PLACE, place);
  return { link, place };
}

/** Forget which run this page was for. */
export function forgetPlace(): void {
  localStorage.removeItem(PLACE);
}
