// A table of texts. Everything is set as text: Vue writes what it is given into text nodes and attributes, never as markup.
// Written with render functions, so that it needs no compiler in the browser.
const { h } = Vue;

const STEPS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
const near = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const exactly = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

function relative(at, now) {
  const passed = at - now;
  if (Math.abs(passed) >= 30 * 86400) return day.format(at * 1000);
  if (Math.abs(passed) < 1) return "now";
  const [length, unit] = STEPS.find(([length]) => Math.abs(passed) >= length) ?? STEPS[3];
  return near.format(Math.trunc(passed / length), unit);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

const isCell = (value) => value !== null && typeof value === "object";
const sortValue = (value) => (isCell(value) ? value.sort ?? value.at ?? value.text ?? "" : value ?? "");

export default {
  props: {
    columns: Array,
    rows: Array,
    caption: String,
    sortBy: String,
    descending: Boolean,
  },
  emits: ["act"],
  data() {
    return { by: this.sortBy ?? null, isDescending: this.descending ?? false, now: Date.now() / 1000 };
  },
  mounted() {
    this.clock = setInterval(() => { if (!document.hidden) this.now = Date.now() / 1000; }, 10000);
  },
  unmounted() {
    clearInterval(this.clock);
  },
  computed: {
    ordered() {
      if (this.by === null) return this.rows;
      const sign = this.isDescending ? -1 : 1;
      return [...this.rows].sort((a, b) => sign * compare(sortValue(a[this.by]), sortValue(b[this.by])));
    },
  },
  methods: {
    sort(column) {
      if (this.by === column.name) this.isDescending = !this.isDescending;
      else [this.by, this.isDescending] = [column.name, Boolean(column.end)];
    },
    title(column) {
      const place = { scope: "col", class: column.end ? "fc-end" : "", role: "columnheader" };
      if (!column.sortable) return h("th", place, column.title);
      const isIt = this.by === column.name;
      const sign = isIt ? (this.isDescending ? "arrow_downward" : "arrow_upward") : "unfold_more";
      return h(
        "th",
        { ...place, "aria-sort": isIt ? (this.isDescending ? "descending" : "ascending") : "none" },
        h("button", { type: "button", class: "fc-sort", onClick: () => this.sort(column) }, [
          column.title,
          h("i", { class: "q-icon material-icons", "aria-hidden": "true" }, sign),
        ]),
      );
    },
    content(cell) {
      if (!isCell(cell)) return String(cell ?? "");
      if (cell.act)
        return h(
          "button",
          {
            type: "button",
            class: "fc-act",
            "aria-label": cell.label ?? cell.text,
            onClick: () => this.$emit("act", { action: cell.act, id: cell.id }),
          },
          cell.text,
        );
      if (cell.at !== undefined) {
        if (cell.at === null) return "–";
        const moment = new Date(cell.at * 1000);
        const attributes = { datetime: moment.toISOString(), title: exactly.format(moment) };
        return h("time", attributes, relative(cell.at, this.now));
      }
      const text = [cell.text];
      if (cell.icon) text.unshift(h("i", { class: "q-icon material-icons", "aria-hidden": "true" }, cell.icon));
      const attributes = { class: [cell.tone ? `fc-state fc-${cell.tone}` : "", cell.mono ? "fc-mono" : ""], title: cell.title };
      // An address is made by the console; anything else is no link.
      if (cell.href && cell.href.startsWith("/")) return h("a", { ...attributes, href: cell.href }, text);
      const main = h("span", attributes, text);
      return cell.sub ? [main, h("span", { class: "fc-sub" }, cell.sub)] : main;
    },
    line(row) {
      return h(
        "tr",
        { key: row.id, role: "row" },
        this.columns.map((column) =>
          h(
            column.heads ? "th" : "td",
            {
              class: column.end ? "fc-end" : "",
              "data-title": column.title,
              role: column.heads ? "rowheader" : "cell",
              scope: column.heads ? "row" : undefined,
            },
            [this.content(row[column.name])].flat(),
          ),
        ),
      );
    },
  },
  render() {
    return h("table", { class: "fc-table", role: "table" }, [
      h("caption", { class: "fc-unseen" }, this.caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, this.columns.map((column) => this.title(column)))),
      h("tbody", { role: "rowgroup" }, this.ordered.map((row) => this.line(row))),
    ]);
  },
};
