"use strict";
// The page works without this file; it adds the cursor over the charts and the browser of rollouts.
// Texts of the model only ever become text nodes.

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

// --- charts: one cursor over all charts of a stage ------------------------------------------------------------------

function nearest(values, x) {
  let low = 0;
  let high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] <= x) low = middle;
    else high = middle;
  }
  return x - values[low] <= values[high] - x ? low : high;
}

class StageCursor {
  constructor(section, data) {
    this.where = section.querySelector("[data-where]");
    this.hint = this.where.textContent;
    this.plots = [...section.querySelectorAll("[data-plot]")].map((plot) => this.prepare(plot, data[plot.dataset.plot]));
    const all = new Set(this.plots.flatMap((plot) => plot.data.lines.flatMap((line) => line.x)));
    this.stops = [...all].sort((a, b) => a - b);
    this.at = this.stops.length - 1;
  }

  prepare(node, data) {
    const outputs = [...node.closest("figure").querySelectorAll("output")];
    const cursor = element("div", { class: "cursor", hidden: "" });
    const area = node.querySelector(".area");
    area.append(cursor);
    const plot = { node, data, area, cursor, outputs, last: outputs.map((output) => output.textContent) };
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      this.show(nearest(this.stops, data.x0 + share * (data.x1 - data.x0)));
    });
    area.addEventListener("pointerleave", () => this.clear());
    node.tabIndex = 0;
    node.setAttribute("role", "slider");
    node.setAttribute("aria-valuemin", data.x0);
    node.setAttribute("aria-valuemax", data.x1);
    node.setAttribute("aria-valuenow", data.x1);
    node.addEventListener("keydown", (event) => this.key(event, plot));
    node.addEventListener("blur", () => this.clear());
    return plot;
  }

  key(event, plot) {
    const last = this.stops.length - 1;
    const moves = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: last };
    if (event.key === "Escape") return this.clear();
    if (!(event.key in moves)) return undefined;
    event.preventDefault();
    this.show(Math.min(last, Math.max(0, moves[event.key])));
    const told = plot.data.lines.map((line, i) => plot.outputs[i].parentNode.textContent.trim());
    plot.node.setAttribute("aria-valuenow", this.stops[this.at]);
    plot.node.setAttribute("aria-valuetext", `${plot.data.axis} ${this.stops[this.at]}: ${told.join(", ")}`);
    return undefined;
  }

  show(index) {
    this.at = index;
    const x = this.stops[index];
    this.where.textContent = `${this.plots[0].data.axis} ${Math.round(x).toLocaleString("en")}`;
    for (const plot of this.plots) {
      plot.cursor.hidden = false;
      plot.cursor.style.left = `${(100 * (x - plot.data.x0)) / (plot.data.x1 - plot.data.x0)}%`;
      plot.data.lines.forEach((line, i) => {
        plot.outputs[i].textContent = line.text[nearest(line.x, x)];
      });
    }
  }

  clear() {
    this.at = this.stops.length - 1;
    this.where.textContent = this.hint;
    for (const plot of this.plots) {
      plot.cursor.hidden = true;
      plot.outputs.forEach((output, i) => {
        output.textContent = plot.last[i];
      });
    }
  }
}

// --- rollouts -------------------------------------------------------------------------------------------------------

const GLYPHS = { right: "✓", wrong: "✗", truncated: "✂", unjudged: "?" };
const SURPRISE_SCALE = 3; // nats at which a token has the full colour
const FINISHES = { stopped: "stopped by itself", length: "cut at the cap", aborted: "aborted", failed: "failed" };

function signed(value) {
  return (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
}

function renderResponse(row) {
  const box = element("div", { class: "response" });
  for (const [kind, pieces] of row.regions) {
    const region = element("span", { class: `r-${kind || "out"}` });
    for (const [mark, text, remark] of pieces) {
      region.append(element("span", { class: mark ? `m-${mark}` : null, title: remark || null }, text));
    }
    box.append(region);
  }
  if (row.left_out) box.append(element("p", { class: "note" }, `${row.left_out} more characters are left out here.`));
  return box;
}

function renderStrip(row, words) {
  const strip = element("div", { class: "strip" });
  row.tokens.forEach((word, i) => {
    const logprob = row.logprobs[i] / 100;
    const text = words[word];
    const shown = text.replaceAll("\n", "⏎\n") || "·";
    const alpha = (0.8 * Math.min(1, -logprob / SURPRISE_SCALE)).toFixed(2);
    const probability = (100 * Math.exp(logprob)).toPrecision(3);
    strip.append(
      element(
        "span",
        { style: `background:rgba(var(--surprise),${alpha})`, title: `${JSON.stringify(text)}: ${probability} %, log-prob ${logprob.toFixed(2)}` },
        shown,
      ),
    );
  });
  const scale = element("p", { class: "scale" }, "certain", element("i"), `chosen with 5 % or less`);
  const parts = [scale, strip];
  if (row.length > row.tokens.length) {
    parts.push(element("p", { class: "note" }, `${row.length - row.tokens.length} more tokens are left out here.`));
  }
  return element("div", {}, ...parts);
}

class RolloutBrowser {
  constructor(root, data) {
    this.root = root;
    this.data = data;
    this.mode = "moment";
    this.outcome = "all";
    this.tab = "response";
    this.momentPick = root.querySelector("#pick-moment");
    this.problemPick = root.querySelector("#pick-problem");
    this.list = root.querySelector("#rollout-list");
    this.detail = root.querySelector("#rollout-detail");
    this.fillMoments();
    this.fillProblems();
    this.listen();
    root.hidden = false;
    this.refresh();
  }

  fillMoments() {
    const sources = { training: "Sampled in training", "held-out": "Held-out evaluations" };
    for (const [source, label] of Object.entries(sources)) {
      const group = element("optgroup", { label });
      this.data.moments.forEach((moment, i) => {
        if (moment.source === source) group.append(element("option", { value: i }, moment.label));
      });
      if (group.children.length) this.momentPick.append(group);
    }
    const first = this.data.moments.findIndex((moment) => moment.source === "training");
    this.momentPick.value = String(Math.max(0, first));
  }

  fillProblems() {
    const seen = this.data.problems.map(() => new Set());
    for (const row of this.data.rollouts) seen[row.problem].add(row.moment);
    const order = seen.map((moments, i) => [moments.size, i]).filter(([size]) => size > 1);
    order.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    for (const [size, i] of order) {
      const prompt = this.data.problems[i].prompt.trim().slice(0, 80);
      this.problemPick.append(element("option", { value: i }, `${prompt} (${size} moments)`));
    }
    this.root.querySelector('[data-mode="problem"]').disabled = order.length === 0;
  }

  listen() {
    for (const button of this.root.querySelectorAll("[data-mode]")) {
      button.addEventListener("click", () => {
        this.mode = button.dataset.mode;
        this.refresh();
      });
    }
    for (const button of this.root.querySelectorAll("[data-jump]")) {
      button.addEventListener("click", () => this.jump(Number(button.dataset.jump)));
    }
    this.momentPick.addEventListener("change", () => this.refresh());
    this.problemPick.addEventListener("change", () => this.refresh());
    this.list.addEventListener("keydown", (event) => this.key(event));
  }

  trainingMoments() {
    const found = this.data.moments.map((moment, i) => [moment, i]).filter(([moment]) => moment.source === "training");
    return (found.length ? found : this.data.moments.map((moment, i) => [moment, i])).map(([, i]) => i);
  }

  jump(share) {
    const moments = this.trainingMoments();
    this.momentPick.value = String(moments[Math.round(share * (moments.length - 1))]);
    this.refresh();
  }

  chosen() {
    const pick = this.mode === "moment" ? this.momentPick : this.problemPick;
    return this.data.rollouts.filter((row) => row[this.mode] === Number(pick.value));
  }

  refresh() {
    for (const button of this.root.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === this.mode));
    }
    for (const control of this.root.querySelectorAll("[data-for]")) control.hidden = control.dataset.for !== this.mode;
    const moments = this.trainingMoments();
    for (const button of this.root.querySelectorAll("[data-jump]")) {
      const target = moments[Math.round(Number(button.dataset.jump) * (moments.length - 1))];
      button.setAttribute("aria-pressed", String(String(target) === this.momentPick.value));
    }
    const rows = this.chosen();
    this.fillOutcomes(rows);
    this.rows = rows.filter((row) => this.outcome === "all" || row.outcome === this.outcome);
    this.fillList();
    this.select(0);
  }

  fillOutcomes(rows) {
    const box = this.root.querySelector("#pick-outcome");
    const counts = { all: rows.length };
    for (const row of rows) counts[row.outcome] = (counts[row.outcome] || 0) + 1;
    if (!counts[this.outcome]) this.outcome = "all";
    const names = ["all", "right", "wrong", "truncated", "unjudged"].filter((name) => name in counts || name === "all");
    box.replaceChildren(
      ...names.map((name) => {
        const glyph = name === "all" ? "" : `${GLYPHS[name]} `;
        const pressed = String(name === this.outcome);
        const button = element("button", { type: "button", "aria-pressed": pressed }, `${glyph}${name} ${counts[name] || 0}`);
        button.addEventListener("click", () => {
          this.outcome = name;
          this.refresh();
          box.querySelector('[aria-pressed="true"]').focus();
        });
        return button;
      }),
    );
  }

  fillList() {
    this.list.replaceChildren();
    let heading = null;
    this.items = this.rows.map((row, index) => {
      const key = this.mode === "moment" ? row.problem : row.moment;
      if (key !== heading) {
        heading = key;
        const title = element("h4", { role: "presentation" });
        if (this.mode === "moment") title.append(element("code", {}, this.data.problems[key].prompt.trim().slice(0, 200)));
        else title.append(`${this.data.moments[key].label} · ${this.data.moments[key].source}`);
        this.list.append(title);
      }
      const item = element(
        "div",
        { class: "item", role: "option", id: `rollout-${index}`, "aria-selected": "false" },
        element("span", { class: `glyph outcome o-${row.outcome}`, "aria-label": row.outcome }, GLYPHS[row.outcome]),
        element("span", {}, `sample ${row.sample}`),
        element("span", { class: "size" }, `${row.length} tok`),
        element("span", { class: "gain", title: "reward" }, Object.keys(row.parts).length ? row.reward.toFixed(2) : ""),
      );
      item.addEventListener("click", () => this.select(index));
      this.list.append(item);
      return item;
    });
  }

  key(event) {
    const last = this.rows.length - 1;
    const moves = { ArrowUp: this.index - 1, ArrowDown: this.index + 1, Home: 0, End: last };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    this.select(Math.min(last, Math.max(0, moves[event.key])));
  }

  select(index) {
    this.index = index;
    this.items.forEach((item, i) => item.setAttribute("aria-selected", String(i === index)));
    const item = this.items[index];
    if (!item) {
      this.detail.replaceChildren(element("p", { class: "empty" }, "No response of this kind here."));
      return;
    }
    this.list.setAttribute("aria-activedescendant", item.id);
    const above = item.offsetTop - this.list.scrollTop;
    if (above < 0 || above > this.list.clientHeight - 40) this.list.scrollTop = item.offsetTop - 80;
    this.show(this.rows[index]);
  }

  show(row) {
    const problem = this.data.problems[row.problem];
    const moment = this.data.moments[row.moment];
    this.detail.scrollTop = 0;
    this.detail.replaceChildren(
      element(
        "div",
        { class: "detail-head" },
        element("span", { class: `outcome o-${row.outcome}` }, `${GLYPHS[row.outcome]} ${row.outcome}`),
        element("b", {}, `${moment.label} · sample ${row.sample}`),
        element("span", { class: "dim" }, `${problem.split} problem ${problem.id}`),
      ),
      element("p", { class: "prompt" }, element("span", {}, "prompt"), element("code", {}, problem.prompt.trim())),
      this.kin(row),
      this.facts(row, moment),
      this.tabs(row),
      this.tab === "tokens" && row.tokens ? renderStrip(row, this.data.words) : renderResponse(row),
    );
  }

  kin(row) {
    const group = this.data.rollouts.filter((other) => other.moment === row.moment && other.problem === row.problem);
    const box = element("div", { class: "kin", role: "group", "aria-label": "The group" }, `group of ${row.group} `);
    for (const other of group) {
      const label = `sample ${other.sample}: ${other.outcome}, ${other.length} tokens`;
      const current = other === row ? "true" : null;
      const attributes = { type: "button", class: `o-${other.outcome}`, title: label, "aria-label": label, "aria-current": current };
      const button = element("button", attributes, GLYPHS[other.outcome]);
      button.addEventListener("click", () => {
        const index = this.rows.indexOf(other);
        if (index >= 0) this.select(index);
        else this.show(other);
      });
      box.append(button);
    }
    return box;
  }

  facts(row, moment) {
    const facts = [["finish", FINISHES[row.finish] || row.finish], ["tokens", String(row.length)]];
    const parts = Object.entries(row.parts).map(([name, value]) => `${name} ${value.toFixed(2)}`);
    if (parts.length) facts.push(["reward", `${row.reward.toFixed(2)} = ${parts.join(" + ")}`]);
    if (parts.length && moment.source === "training") facts.push(["reward − group mean", signed(row.advantage)]);
    for (const [name, [outcome, score, reason, extracted]] of Object.entries(row.verdicts)) {
      const said = outcome === "score" ? `${score.toFixed(score % 1 ? 2 : 0)} (${reason.replace("_", " ")})` : `${outcome}: ${reason}`;
      facts.push([name, extracted ? `${said}, read “${extracted}”` : said]);
    }
    if (row.logprobs && row.logprobs.length) {
      const mean = row.logprobs.reduce((sum, value) => sum + value, 0) / row.logprobs.length / 100;
      facts.push(["mean log-prob", mean.toFixed(3).replace("-", "−")]);
    }
    const nodes = facts.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text)));
    return element("dl", { class: "bits" }, ...nodes);
  }

  tabs(row) {
    if (!row.tokens) return null;
    const names = { response: "Response", tokens: "Tokens and log-probs" };
    const buttons = Object.entries(names).map(([name, label]) => {
      const button = element("button", { type: "button", "aria-pressed": String(name === this.tab), "data-tab": name }, label);
      button.addEventListener("click", () => {
        this.tab = name;
        this.show(row);
        this.detail.querySelector(`[data-tab="${name}"]`).focus();
      });
      return button;
    });
    return element("div", { class: "segmented tabs", role: "group", "aria-label": "View" }, ...buttons);
  }
}

// --- start ----------------------------------------------------------------------------------------------------------

const plotData = readData("plot-data");
for (const section of document.querySelectorAll("[data-cursor]")) new StageCursor(section, plotData);
const browserRoot = document.getElementById("browser");
if (browserRoot) new RolloutBrowser(browserRoot, readData("rollout-data"));
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
