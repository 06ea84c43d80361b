// A moment in the viewer's zone. All of a page are brought up to date by one timer, in the browser.
import { absolute, relative } from "/console/static/times.js";

const listeners = new Set();
let timer = null;

function listen(component) {
  listeners.add(component);
  timer ??= setInterval(() => listeners.forEach((each) => each.$forceUpdate()), 15000);
}

export default {
  props: { at: Number, absolute: Boolean },
  mounted() {
    listen(this);
  },
  unmounted() {
    listeners.delete(this);
  },
  render() {
    if (this.at === null || this.at === undefined) return Vue.h("span", { class: "fc-unknown" }, "–");
    const full = absolute(this.at);
    return Vue.h(
      "time",
      { datetime: new Date(this.at * 1000).toISOString(), title: full },
      this.absolute ? full : relative(this.at),
    );
  },
};
