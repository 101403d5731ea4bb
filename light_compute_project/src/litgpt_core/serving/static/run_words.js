// Numbers and names of trainings as people read them.

/** Where the page shows a run. */
export const addressOf = (name) => `#runs/${encodeURIComponent(name)}`;

const whole = new Intl.NumberFormat("en");

export const AXES = [
  { name: "steps", label: "steps" },
  { name: "tokens", label: "tokens" },
  { name: "time", label: "time" },
  { name: "flops", label: "FLOPs" },
];

/** The axis of a chart whose values go up to `far`: its label, and how many of the server's units are one of its own. */
export function axisOf(name, far) {
  if (name !== "time") return { label: name === "flops" ? "FLOPs" : name, unit: 1 };
  if (far < 120) return { label: "seconds of training", unit: 1 };
  return far < 7200 ? { label: "minutes of training", unit: 60 } : { label: "hours of training", unit: 3600 };
}

const KEYS = {
  val_loss: "Validation loss",
  train_loss: "Training loss",
  val_bpb: "Bits per byte",
  lr: "Learning rate",
  grad_norm: "Gradient norm",
  tokens_per_s: "Tokens per second",
  mfu: "Share of peak arithmetic",
};

/** A key of metrics.jsonl in words. */
export const keyText = (key) => KEYS[key] ?? key;

export function durationText(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Day and minute of an ISO time, in the reader's time zone. */
export function dayText(iso) {
  const time = new Date(iso ?? NaN);
  if (Number.isNaN(time.getTime())) return "";
  const two = (value) => String(value).padStart(2, "0");
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}`;
}

/** `1,200 of 5,000`. */
export function progressText({ step, max_steps: most, state }) {
  if (step === null) return "";
  return state !== "finished" && most ? `${whole.format(step)} of ${whole.format(most)}` : whole.format(step);
}
