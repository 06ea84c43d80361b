// A form of native fields, each with its label, its help and what is wrong with it. Everything is set as text.
// With an `address` it is a filter: sending it opens that address with the fields as parameters, so that the address says
// what the page shows. Without, its values are sent to the page.
const h = (...args) => Vue.h(...args);

const two = (number) => String(number).padStart(2, "0");

// A moment as a field shows it, in the viewer's zone, and back. Addresses and values have it in UTC.
function local(text) {
  const day = new Date(text);
  if (!text || Number.isNaN(day.getTime())) return "";
  const date = `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())}`;
  return `${date}T${two(day.getHours())}:${two(day.getMinutes())}`;
}
const utc = (text) => (text ? new Date(text).toISOString().slice(0, 16) + "Z" : "");

export default {
  props: { fields: Array, errors: Object, fault: String, address: String, send: String, cancel: String, label: String, keep: Object },
  emits: ["send"],
  data() {
    return { values: Object.fromEntries(this.fields.map((field) => [field.name, field.value])) };
  },
  watch: {
    errors() {
      // Who sees no colours, or not the whole page, is led to what is to be changed.
      this.$nextTick(() => this.$el.querySelector("[aria-invalid=true]")?.focus());
    },
  },
  methods: {
    submit(event) {
      event.preventDefault();
      if (this.address === undefined || this.address === null) {
        this.$emit("send", { ...this.values });
        return;
      }
      const told = Object.entries({ ...this.keep, ...this.values }).filter(([, value]) => value !== "" && value !== false && value !== null);
      const query = new URLSearchParams(told.map(([name, value]) => [name, String(value)])).toString();
      window.location.assign(query ? `${this.address}?${query}` : this.address);
    },
    input(field, id, told) {
      const common = { id, name: field.name, required: field.required || undefined, ...told };
      const set = (value) => { this.values[field.name] = value; };
      const value = this.values[field.name];
      if (field.kind === "choice")
        return h(
          "select",
          { ...common, value, onChange: (event) => set(event.target.value) },
          field.options.map((each) => h("option", { value: each.value, selected: each.value === value }, each.text)),
        );
      if (field.kind === "lines")
        return h("textarea", { ...common, value, rows: 5, spellcheck: false, onInput: (event) => set(event.target.value) });
      if (field.kind === "yes")
        return h("input", { ...common, type: "checkbox", checked: Boolean(value), onChange: (event) => set(event.target.checked) });
      if (field.kind === "moment")
        return h("input", {
          ...common, type: "datetime-local", value: local(value), onChange: (event) => set(utc(event.target.value)),
        });
      return h("input", {
        ...common, type: "text", inputmode: field.kind === "number" ? "numeric" : undefined, autocomplete: "off",
        spellcheck: false, value, onInput: (event) => set(event.target.value),
      });
    },
    pairs() {
      const found = [];
      for (const field of this.fields) {
        if (field.beside && found.length) found.at(-1).push(field);
        else found.push([field]);
      }
      return found;
    },
    field(field) {
      const id = `f${this.$.uid}-${field.name}`;
      const wrong = this.errors?.[field.name];
      const told = [field.help && `${id}-help`, wrong && `${id}-wrong`].filter(Boolean).join(" ");
      const input = this.input(field, id, {
        "aria-invalid": wrong ? "true" : undefined,
        "aria-describedby": told || undefined,
      });
      const label = h("label", { for: id }, [
        field.label,
        field.required ? h("span", { "aria-hidden": "true", class: "fc-required" }, " *") : "",
      ]);
      return h("div", { class: ["fc-field", `fc-field-${field.kind}`], key: field.name }, [
        ...(field.kind === "yes" ? [h("div", { class: "fc-check" }, [input, label])] : [label, input]),
        field.help ? h("p", { id: `${id}-help`, class: "fc-help" }, field.help) : null,
        wrong ? h("p", { id: `${id}-wrong`, class: "fc-wrong" }, wrong) : null,
      ]);
    },
  },
  render() {
    const buttons = [h("button", { type: "submit", class: "fc-button fc-primary"}, this.send)];
    if (this.cancel) buttons.push(h("a", { href: this.cancel, class: "fc-button" }, this.address ? "Clear" : "Cancel"));
    return h(
      "form",
      {
        class: ["fc-fields", this.address ? "fc-filter" : ""], "aria-label": this.label, novalidate: true,
        role: this.address ? "search" : undefined, onSubmit: this.submit,
      },
      [
        this.fault ? h("p", { class: "fc-wrong", role: "alert" }, this.fault) : null,
        ...this.pairs().map((pair) =>
          pair.length > 1 ? h("div", { class: "fc-pair" }, pair.map(this.field)) : this.field(pair[0]),
        ),
        h("div", { class: "fc-buttons" }, buttons),
      ],
    );
  },
};
