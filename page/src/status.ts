// The strip: what serves and how it is, from /metrics every two seconds while somebody looks.

import { ApiError, get } from "./api";
import { byId, setText } from "./dom";
import { type Figures, figures, rate } from "./metrics";

const EVERY = 2000;
const MOMENTS = 30; // of the trend

export class Status {
  private before: Figures | null = null;
  private readonly rates: number[] = [];
  private timer = 0;

  /** `failed` is told when the server is away or wants another key. */
  constructor(private readonly failed: () => void) {
    document.addEventListener("visibilitychange", () => {
      if (this.timer && !document.hidden) void this.poll();
    });
  }

  /** Asks now and from now on. */
  async poll(): Promise<void> {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.poll(), EVERY);
    if (document.hidden) return;
    try {
      const answer = await get("metrics");
      this.show(figures(await answer.text(), performance.now()));
    } catch (error) {
      // A proxy may keep /metrics to itself: the page works without.
      if (error instanceof ApiError && error.status < 500 && error.status !== 401) return this.show(figures("", performance.now()));
      this.stop();
      this.failed();
    }
  }

  stop(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.before = null;
  }

  private show(now: Figures): void {
    const { info } = now;
    setText(byId("encoding"), info["encoding"] ?? "–");
    setText(byId("machine"), info["machine"] ?? "–");
    byId("machine").title = info["machine"] ?? "";
    setText(byId("running"), whole(now.running));
    setText(byId("waiting"), whole(now.waiting));
    this.showRate(rate(this.before, now));
    const cache = now.pages ? (now.pagesUsed ?? 0) / now.pages : undefined;
    setText(byId("cache"), cache === undefined ? "–" : `${Math.round(cache * 100)} %`);
    byId<HTMLMeterElement>("cache-meter").value = cache ?? 0;
    const share = now.drafted ? (now.accepted ?? 0) / now.drafted : undefined;
    setText(byId("acceptance"), share === undefined ? "none yet" : `${Math.round(share * 100)} %`);
    this.before = now;
  }

  private showRate(value: number | undefined): void {
    setText(byId("rate"), value === undefined ? "–" : String(Math.round(value)));
    if (value === undefined) return;
    this.rates.push(value);
    if (this.rates.length > MOMENTS) this.rates.shift();
    const most = Math.max(...this.rates, 1);
    const missing = MOMENTS - this.rates.length; // the newest is at the right end
    const points = this.rates.map(
      (rate, index) => `${(60 * (missing + index)) / (MOMENTS - 1)},${17 - (15 * rate) / most}`,
    );
    document.querySelector("#trend polyline")!.setAttribute("points", points.join(" "));
  }
}

function whole(value: number | undefined): string {
  return value === undefined ? "–" : String(Math.round(value));
}
