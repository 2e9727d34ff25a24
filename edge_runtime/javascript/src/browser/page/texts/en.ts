/** The page's sentences in English; other languages have the same keys. */

export const en = {
  title: "Train together, keep your photos",
  explain:
    "Your phone and others teach one network to tell pictures apart. Your photos stay on this phone: what leaves it are numbers that a few layers make of them, and you see here what those give away.",
  opening: "Asking the server about the run …",
  noLink: "This page opens with the link that whoever runs the server gave you. Paste it here:",
  link: "Link",
  openLink: "Open",
  otherServer: "This link belongs to another server. Open it itself:",
  run: (devices: number, rounds: number) => `${devices} devices, ${rounds} rounds.`,
  photos: "1. Your photos",
  photosHow:
    "Sort photos into the classes: add them to a class, drag them, or choose a class below each one. A folder of folders is sorted by their names.",
  needed: (have: number) =>
    have >= 3
      ? `${have} photos sorted. More of each class are better: ten or more.`
      : `${have} photos sorted, at least 3 are needed; ten or more of each class are better.`,
  add: (name: string) => `Add photos of ${name}`,
  camera: (name: string) => `Photograph ${name}`,
  addAny: "Add photos to sort",
  addFolder: "Add a folder of folders",
  unsorted: "Not sorted yet",
  classOf: "Class of this photo",
  remove: "Remove",
  count: (num: number) => (num === 1 ? "1 photo" : `${num} photos`),
  emptyClass: (names: string) =>
    `No photos of ${names}: that is allowed, and this phone will teach the network nothing about them.`,
  unreadable: (name: string) => `${name} cannot be read as a picture, it was left out.`,
  heic: (name: string) =>
    `${name} is HEIC, which this browser cannot read. Set the camera to “most compatible”, or open this page in Safari.`,
  next: "Show what would be sent",
  working: "Computing …",
  preview: "2. What would be sent",
  bytes: (round: string, run: string, rounds: number) =>
    `About ${round} a round, ${run} in ${rounds} rounds. Nothing has been sent yet.`,
  leaves: "This leaves your phone:",
  stays: "This stays on it:",
  rebuiltHow: (percent: number) =>
    `On top some of your photos as the network sees them. Below what the server could make of what arrives, here by the simplest way there is (a linear map, fitted to your other photos): it holds ${percent}% of the differences between pixels. A server that tries harder gets more. Take part only if it may see this.`,
  noPicture: "For this network no picture can be made that simply. That does not mean that the server cannot make one.",
  guards: "More protection, for those who know what it costs",
  guardsHow:
    "Blurred features tell less and teach less. All of this holds from the start of a run to its end; empty fields change nothing.",
  featureClip: "Limit features to (from minus this number to it)",
  featureNoise: "Blur features with noise of this deviation",
  requireTap: "Take part only if features are of this network or shape, such as 16x8x8",
  maxBits: "Take part only if each number leaves in so many bits at most",
  original: "Photo",
  made: "Rebuilt",
  consent: "I agree that the server gets this, with the classes that I sorted the photos into.",
  start: "Take part",
  back: "Back to the photos",
  training: "3. Training",
  phase: {
    train: (round: number, rounds: number) => `Round ${round} of ${rounds}: trains on your photos`,
    upload: (round: number, rounds: number) => `Round ${round} of ${rounds}: computes and sends`,
    wait: () => "Waits for the others",
    model: () => "Takes the finished network",
  },
  keepOpen: "Leave this page open. If it is closed, open it again: it goes on where it was.",
  progress: "Progress",
  pause: "Pause",
  resume: "Go on",
  pausing: "Pauses after this step …",
  paused: "Paused. Everything is saved.",
  battery: "Paused: the battery is below 20%. It goes on when the phone is charged, or when you say so.",
  metered: "Paused: this network may cost money. It goes on in another one, or when you say so.",
  away: "The server does not answer. It is asked again and again; nothing is lost, and it goes on by itself.",
  done: "4. Done",
  result: (percent: number, num: number) =>
    `The network that all devices trained is on this phone. Of ${num} of your photos that it never saw, it names ${percent}% rightly.`,
  haveModel: "The network that all devices trained is on this phone.",
  try: "Try it with a photo",
  looksLike: (name: string, percent: number) => `This looks like ${name} (${percent}%).`,
  forget: "Forget everything on this phone",
  forgetSure:
    "Photos, progress and network of this run are removed from this browser. What was sent stays at the server. Sure?",
  forgotten: "Forgotten. To take part again, open the link again.",
  trouble: "Something went wrong",
  again: "Try again",
  unforeseen:
    "Something happened that nobody foresaw. Nothing that was saved is lost; show the line below to whoever runs the server.",
  details: "What happened",
  language: "Language",
  troubles: {
    ServerUnavailableError: "The server does not answer. Is this phone online?",
    AuthenticationError: "The server does not take this link: it is spent, old, or was withdrawn. Ask for another one.",
    DiskFullError: "This phone has no room left. Make some and try again: nothing is lost.",
    MemoryLimitError: "This phone's memory does not suffice. Close other tabs and try again: nothing is lost.",
    RunFailedError: "The run has ended without this phone, or failed. Ask whoever runs the server.",
    UnsafeModelError: "The server wants something of this phone that it does not do. Nothing was sent.",
    DatasetError: "These photos cannot be used as they are.",
    OtherTabError: "This page is open in another tab, which takes part already. Close one of the two.",
    NothingKeptError:
      "This browser keeps nothing for this page, as in a private window. Open the link in an ordinary one.",
    ConfigError: "Something that was entered, or that the link leads to, cannot be used.",
    ProtocolError:
      "The server's answers make no sense to this page. Load the page again; if that does not help, tell whoever runs the server.",
    ArtifactError: "The network of this run does not fit what is kept on this phone. Ask whoever runs the server.",
  } as Record<string, string>,
};

export type Texts = typeof en;
