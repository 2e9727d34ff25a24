/** Die Sätze der Seite auf Deutsch. */

import type { Texts } from "./en.js";

export const de: Texts = {
  title: "Gemeinsam trainieren, Fotos behalten",
  explain:
    "Ihr Telefon und andere bringen einem Netz bei, Bilder zu unterscheiden. Ihre Fotos bleiben auf diesem Telefon: Was es verlässt, sind Zahlen, die wenige Schichten daraus machen, und Sie sehen hier, was diese verraten.",
  opening: "Der Server wird nach dem Lauf gefragt …",
  noLink:
    "Diese Seite öffnet sich mit dem Link, den Sie von der Person haben, die den Server betreibt. Fügen Sie ihn hier ein:",
  link: "Link",
  openLink: "Öffnen",
  otherServer: "Dieser Link gehört zu einem anderen Server. Öffnen Sie ihn selbst:",
  run: (devices, rounds) => `${devices} Geräte, ${rounds} Runden.`,
  photos: "1. Ihre Fotos",
  photosHow:
    "Sortieren Sie Fotos in die Klassen: Fügen Sie sie einer Klasse hinzu, ziehen Sie sie dorthin oder wählen Sie unter jedem eine Klasse. Ein Ordner mit Ordnern wird nach deren Namen sortiert.",
  needed: (have) =>
    have >= 3
      ? `${have} Fotos sortiert. Mehr von jeder Klasse sind besser: zehn oder mehr.`
      : `${have} Fotos sortiert, mindestens 3 sind nötig; zehn oder mehr von jeder Klasse sind besser.`,
  add: (name) => `Fotos von ${name} hinzufügen`,
  camera: (name) => `${name} fotografieren`,
  addAny: "Fotos zum Sortieren hinzufügen",
  addFolder: "Ordner mit Ordnern hinzufügen",
  unsorted: "Noch nicht sortiert",
  classOf: "Klasse dieses Fotos",
  remove: "Entfernen",
  count: (num) => (num === 1 ? "1 Foto" : `${num} Fotos`),
  emptyClass: (names) =>
    `Keine Fotos von ${names}: Das ist erlaubt, und dieses Telefon bringt dem Netz nichts darüber bei.`,
  unreadable: (name) => `${name} lässt sich nicht als Bild lesen und wurde ausgelassen.`,
  heic: (name) =>
    `${name} ist HEIC, was dieser Browser nicht liest. Stellen Sie die Kamera auf „maximale Kompatibilität“, oder öffnen Sie diese Seite in Safari.`,
  next: "Zeigen, was gesendet würde",
  working: "Wird berechnet …",
  preview: "2. Was gesendet würde",
  bytes: (round, run, rounds) => `Etwa ${round} je Runde, ${run} in ${rounds} Runden. Noch wurde nichts gesendet.`,
  leaves: "Das verlässt Ihr Telefon (auf Englisch):",
  stays: "Das bleibt darauf:",
  rebuiltHow: (percent) =>
    `Oben einige Ihrer Fotos, wie das Netz sie sieht. Unten, was der Server aus dem machen könnte, was ankommt, hier auf die einfachste Art (eine lineare Abbildung, angepasst an Ihre anderen Fotos): Darin stecken ${percent} % der Unterschiede zwischen den Bildpunkten. Ein Server, der sich mehr Mühe gibt, bekommt mehr. Machen Sie nur mit, wenn er das sehen darf.`,
  noPicture:
    "Bei diesem Netz lässt sich so einfach kein Bild machen. Das heißt nicht, dass der Server keines machen kann.",
  guards: "Mehr Schutz, für alle, die wissen, was er kostet",
  guardsHow:
    "Unscharfe Merkmale verraten weniger und lehren weniger. All das gilt vom Anfang eines Laufs bis zu seinem Ende; leere Felder ändern nichts.",
  featureClip: "Merkmale begrenzen auf (von minus dieser Zahl bis zu ihr)",
  featureNoise: "Merkmale mit Rauschen dieser Streuung verwischen",
  requireTap: "Nur mitmachen, wenn Merkmale von diesem Netz oder dieser Form sind, etwa 16x8x8",
  maxBits: "Nur mitmachen, wenn jede Zahl in höchstens so vielen Bit das Telefon verlässt",
  original: "Foto",
  made: "Rekonstruiert",
  consent: "Ich bin einverstanden, dass der Server das bekommt, mit den Klassen, in die ich die Fotos sortiert habe.",
  start: "Mitmachen",
  back: "Zurück zu den Fotos",
  training: "3. Training",
  phase: {
    train: (round, rounds) => `Runde ${round} von ${rounds}: trainiert mit Ihren Fotos`,
    upload: (round, rounds) => `Runde ${round} von ${rounds}: berechnet und sendet`,
    wait: () => "Wartet auf die anderen",
    model: () => "Holt das fertige Netz",
  },
  keepOpen:
    "Lassen Sie diese Seite offen. Wird sie geschlossen, öffnen Sie sie wieder: Es geht dort weiter, wo es war.",
  progress: "Fortschritt",
  pause: "Pause",
  resume: "Weiter",
  pausing: "Pause nach diesem Schritt …",
  paused: "Pause. Alles ist gespeichert.",
  battery: "Pause: Der Akku ist unter 20 %. Weiter geht es, wenn das Telefon lädt oder Sie es sagen.",
  metered: "Pause: Dieses Netz kostet vielleicht Geld. Weiter geht es in einem anderen, oder wenn Sie es sagen.",
  away: "Der Server antwortet nicht. Er wird immer wieder gefragt; nichts ist verloren, und es geht von selbst weiter.",
  done: "4. Fertig",
  result: (percent, num) =>
    `Das Netz, das alle Geräte trainiert haben, ist auf diesem Telefon. Von ${num} Ihrer Fotos, die es nie gesehen hat, benennt es ${percent} % richtig.`,
  haveModel: "Das Netz, das alle Geräte trainiert haben, ist auf diesem Telefon.",
  try: "Mit einem Foto ausprobieren",
  looksLike: (name, percent) => `Das sieht nach ${name} aus (${percent} %).`,
  forget: "Alles auf diesem Telefon vergessen",
  forgetSure:
    "Fotos, Stand und Netz dieses Laufs werden aus diesem Browser entfernt. Was gesendet wurde, bleibt beim Server. Sicher?",
  forgotten: "Vergessen. Um wieder mitzumachen, öffnen Sie den Link noch einmal.",
  trouble: "Etwas ging schief",
  again: "Noch einmal versuchen",
  unforeseen:
    "Etwas geschah, womit niemand gerechnet hat. Was gespeichert war, ist nicht verloren; zeigen Sie die Zeile unten der Person, die den Server betreibt.",
  details: "Was geschah (auf Englisch)",
  language: "Sprache",
  troubles: {
    ServerUnavailableError: "Der Server antwortet nicht. Ist dieses Telefon im Netz?",
    AuthenticationError:
      "Der Server nimmt diesen Link nicht: Er ist verbraucht, alt oder zurückgezogen. Lassen Sie sich einen neuen geben.",
    DiskFullError:
      "Auf diesem Telefon ist kein Platz mehr. Schaffen Sie welchen und versuchen Sie es wieder: Nichts ist verloren.",
    MemoryLimitError:
      "Der Speicher dieses Telefons reicht nicht. Schließen Sie andere Tabs und versuchen Sie es wieder: Nichts ist verloren.",
    RunFailedError: "Der Lauf endete ohne dieses Telefon oder ist gescheitert. Fragen Sie, wer den Server betreibt.",
    UnsafeModelError: "Der Server will etwas von diesem Telefon, was es nicht tut. Nichts wurde gesendet.",
    DatasetError: "Diese Fotos lassen sich so nicht verwenden.",
    OtherTabError: "Diese Seite ist in einem anderen Tab offen, der schon mitmacht. Schließen Sie einen der beiden.",
    NothingKeptError:
      "Dieser Browser behält für diese Seite nichts, wie in einem privaten Fenster. Öffnen Sie den Link in einem gewöhnlichen.",
    ConfigError: "Etwas, das eingegeben wurde oder wohin der Link führt, lässt sich nicht verwenden.",
    ProtocolError:
      "Die Antworten des Servers ergeben für diese Seite keinen Sinn. Laden Sie die Seite neu; hilft das nicht, sagen Sie es der Person, die den Server betreibt.",
    ArtifactError:
      "Das Netz dieses Laufs passt nicht zu dem, was auf diesem Telefon liegt. Fragen Sie, wer den Server betreibt.",
  },
};
