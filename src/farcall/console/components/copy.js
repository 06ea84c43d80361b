// Copies a text. Without https the clipboard's own interface is closed; then by way of a selection.
export default {
  props: { text: String, label: String },
  data() {
    return { done: false };
  },
  methods: {
    async copy() {
      try {
        await navigator.clipboard.writeText(this.text);
      } catch {
        const area = document.createElement("textarea");
        area.value = this.text;
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        this.$refs.button.focus();
      }
      this.done = true;
      setTimeout(() => (this.done = false), 2000);
    },
  },
  render() {
    return Vue.h("span", { class: "fc-copy" }, [
      Vue.h(
        "button",
        { type: "button", ref: "button", "aria-label": this.label, title: this.label, onClick: this.copy },
        Vue.h("i", { class: "q-icon notranslate material-icons", "aria-hidden": "true" }, this.done ? "check" : "content_copy"),
      ),
      Vue.h("span", { class: "fc-hidden", role: "status" }, this.done ? "Copied" : ""),
    ]);
  },
};
