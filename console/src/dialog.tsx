// Native dialogs: the browser keeps the focus inside, and gives it back.
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";
import { Icon } from "./icons";
import { Button } from "./ui";

export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean; locked?: boolean }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current!;
    const opener = document.activeElement as HTMLElement | null;
    dialog.showModal();
    return () => {
      dialog.close();
      opener?.focus?.();
    };
  }, []);
  return (
    <dialog
      ref={element}
      class={props.wide ? "wide" : undefined}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        if (!props.locked) props.onClose();
      }}
    >
      <header class="dialog-head">
        <h2 id={id}>{props.title}</h2>
        {!props.locked && (
          <button type="button" class="button quiet square" onClick={props.onClose} aria-label="Close">
            <Icon name="close" />
          </button>
        )}
      </header>
      {props.children}
    </dialog>
  );
}

/** A form in a dialog: it sends, shows what was wrong beside each field, and is closed by its owner when it succeeded. */
export function FormDialog(props: {
  title: string;
  submit: string;
  danger?: boolean;
  disabled?: boolean;
  onClose: () => void;
  send: () => Promise<void>;
  wide?: boolean;
  children: (errors: Record<string, string[]>) => ComponentChildren;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const form = useRef<HTMLFormElement>(null);
  const errors = error instanceof ApiError ? error.fields : {};

  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await props.send();
    } catch (error) {
      setError(error);
      setBusy(false);
    }
  };
  useEffect(() => {
    if (error) form.current?.querySelector<HTMLElement>("[aria-invalid=true], [role=alert]")?.focus();
  }, [error]);

  return (
    <Dialog title={props.title} onClose={props.onClose} wide={props.wide}>
      <form ref={form} onSubmit={submit} noValidate>
        <div class="dialog-body">
          {error != null && (
            <p class="form-error" role="alert" tabIndex={-1}>
              {error instanceof Error ? error.message : "That did not work."}
              {unplaced(errors, form.current).map((text) => <span key={text}><br />{text}</span>)}
            </p>
          )}
          {props.children(errors)}
        </div>
        <footer class="dialog-foot">
          <Button onClick={props.onClose}>Cancel</Button>
          <Button type="submit" kind={props.danger ? "danger" : "primary"} busy={busy} disabled={props.disabled}>{props.submit}</Button>
        </footer>
      </form>
    </Dialog>
  );
}

/** Errors of fields that the form does not show. */
function unplaced(errors: Record<string, string[]>, form: HTMLFormElement | null): string[] {
  return Object.entries(errors)
    .filter(([field]) => !form?.querySelector(`[name="${CSS.escape(field.split(".")[0])}"]`))
    .flatMap(([field, texts]) => texts.map((text) => `${field}: ${text}`));
}

export function Field(props: {
  name: string;
  label: string;
  hint?: ComponentChildren;
  errors?: Record<string, string[]>;
  children: (attributes: { id: string; name: string; "aria-describedby"?: string; "aria-invalid"?: boolean }) => ComponentChildren;
}) {
  const id = useId();
  const errors = Object.entries(props.errors ?? {})
    .filter(([field]) => field === props.name || field.startsWith(`${props.name}.`))
    .flatMap(([, texts]) => texts);
  const about = [props.hint && `${id}-hint`, errors.length > 0 && `${id}-error`].filter(Boolean).join(" ");
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children({ id, name: props.name, "aria-describedby": about || undefined, "aria-invalid": errors.length > 0 || undefined })}
      {props.hint && <p class="hint" id={`${id}-hint`}>{props.hint}</p>}
      {errors.length > 0 && <p class="field-error" id={`${id}-error`}>{errors.join(" ")}</p>}
    </div>
  );
}
