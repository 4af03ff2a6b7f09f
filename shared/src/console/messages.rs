//! Every text of the console in English and Japanese. A text without a translation does not
//! compile, nor does one that leaves out a value that the other language shows.

use std::fmt::Display;

use crate::domain::{OrUnknown, Scope, TokenState, UserIdentifier};
use crate::email::Language;
use crate::error::ApiError;
use crate::permissions::Role;
use crate::trust::TrustRule;

/// Defines the texts without values: a field each.
macro_rules! messages {
    ($($name:ident: $en:literal, $ja:literal;)+) => {
        /// The texts of one language.
        // A text is its own documentation, and some show a URL.
        #[allow(rustdoc::bare_urls)]
        #[derive(Debug)]
        pub struct Messages {
            written_in: Language,
            $(#[doc = $en] pub $name: &'static str,)+
        }

        /// The English texts.
        pub static EN: Messages = Messages { written_in: Language::En, $($name: $en,)+ };

        /// The Japanese texts.
        pub static JA: Messages = Messages { written_in: Language::Ja, $($name: $ja,)+ };
    };
}

/// Defines the texts with values: a method each.
macro_rules! messages_with_values {
    ($($name:ident($($value:ident),+): $en:literal, $ja:literal;)+) => {
        impl Messages {
            $(#[doc = $en]
            pub fn $name(&self, $($value: impl Display),+) -> String {
                match self.written_in {
                    Language::En => format!($en, $($value = $value),+),
                    Language::Ja => format!($ja, $($value = $value),+),
                }
            })+
        }
    };
}

impl Messages {
    /// The texts of a language.
    pub fn of(language: Language) -> &'static Self {
        match language {
            Language::En => &EN,
            Language::Ja => &JA,
        }
    }
}

messages! {
    // Frame
    skip_to_content: "Skip to content", "本文へ移動";
    menu: "Menu", "メニュー";
    main_navigation: "Main", "メイン";
    guard: "Guard", "Guard";
    settings: "Settings", "設定";
    overview: "Overview", "概要";
    tokens: "Tokens", "トークン";
    installations: "Installations", "インストール履歴";
    my_tokens: "My tokens", "マイトークン";
    api_keys: "API Keys", "APIキー";
    access_tokens: "Access Tokens", "アクセストークン";
    bots: "Bots", "ボット";
    members: "Members", "メンバー";
    projects: "Projects", "プロジェクト";
    policies: "Policies", "ポリシー";
    audit_log: "Audit log", "監査ログ";
    my_account: "My account", "マイアカウント";
    sign_out: "Sign out", "サインアウト";

    // Words and controls of many pages
    error: "Error", "エラー";
    cancel: "Cancel", "キャンセル";
    back: "Back", "戻る";
    save: "Save", "保存";
    search: "Search", "検索";
    clear: "Clear", "条件をクリア";
    copy: "Copy", "コピー";
    copied: "Copied", "コピーしました";
    select_all: "Select all", "すべて選択";
    done: "Done", "完了";
    revoke: "Revoke", "失効";
    delete: "Delete", "削除";
    remove: "Remove", "削除";
    change: "Change", "変更";
    view: "View", "表示";
    actions: "Actions", "操作";
    pages: "Pages", "ページ";
    first_page: "First page", "最初のページ";
    next_page: "Next page", "次のページ";
    download_csv: "Download CSV", "CSVをダウンロード";
    name: "Name", "名前";
    status: "Status", "状態";
    id: "ID", "ID";
    prefix: "Prefix", "先頭部分";
    created: "Created", "作成日時";
    created_by: "Created by", "作成者";
    issued: "Issued", "発行日時";
    issued_by: "Issued by", "発行者";
    expires: "Expires", "有効期限";
    last_used: "Last used", "最終使用";
    revoked_at: "Revoked", "失効日時";
    revoked_by: "Revoked by", "失効させた人";
    never: "Never", "なし";
    never_used: "Never used", "未使用";
    not_expiring: "Never", "無期限";
    all: "All", "すべて";
    active: "Active", "有効";
    expired: "Expired", "期限切れ";
    revoked: "Revoked", "失効済み";
    disabled: "Disabled", "無効";
    invited: "Invited", "招待中";
    email: "Email address", "メールアドレス";
    roles: "Roles", "ロール";
    role: "Role", "ロール";
    yes: "Yes", "はい";
    no: "No", "いいえ";
    from: "From", "開始";
    to: "To", "終了";
    time: "Time", "日時";
    utc_days: "Days begin and end at midnight UTC.", "日付の区切りは協定世界時（UTC）の午前0時です。";
    there_is_no_undo: "There is no undo.", "この操作は取り消せません。";
    nothing_was_saved: "Nothing was saved. Correct the fields below and try again.", "保存されませんでした。以下の項目を修正して、もう一度お試しください。";
    suspended: "The operator of this service has suspended this organization: it gets no new tokens.", "この組織はサービスの運用担当者によって停止されているため、新しいトークンを作成できません。";
    guard_is_off: "Guard is not active for this organization, so no tokens can be issued. Tokens can still be listed and revoked.", "この組織ではGuardが有効になっていないため、トークンを発行できません。トークンの一覧表示と失効は引き続き行えます。";
    shown_once: "This is the only time it is shown. Copy it now and store it in a safe place.", "表示されるのは今回だけです。今すぐコピーして、安全な場所に保管してください。";
    or_with_the_api: "Or with the API:", "APIを使う場合：";
    too_many_attempts: "Too many attempts. Wait a minute and try again.", "試行回数が多すぎます。1分ほど待ってから、もう一度お試しください。";
    try_again_later: "The service is busy. Nothing was changed. Try again in a moment.", "サービスが混み合っています。変更は行われていません。しばらくしてから、もう一度お試しください。";

    // Expiry
    expiry: "Expiry", "有効期限";
    in_7_days: "In 7 days", "7日後";
    in_30_days: "In 30 days", "30日後";
    in_90_days: "In 90 days", "90日後";
    in_365_days: "In 365 days", "365日後";
    on_a_date: "On a date", "日付を指定";
    does_not_expire: "Never", "無期限";
    expiry_date: "Date", "日付";
    expiry_date_hint: "Valid until the end of that day, UTC.", "指定した日の終わり（UTC）まで有効です。";
    expiry_missing: "Choose when it expires.", "有効期限を選択してください。";
    expiry_date_missing: "Enter a date.", "日付を入力してください。";
    expiry_in_the_past: "Enter a date that is not in the past.", "今日以降の日付を入力してください。";

    // Policies
    policies_lead: "How long tokens of this organization live. An empty field is no limit.", "この組織のトークンがどれだけ有効かを定めます。空欄の項目には制限がありません。";
    max_lifetime: "Longest lifetime in days", "有効期間の上限（日数）";
    max_lifetime_text: "New tokens must expire within so many days of their creation, and so must a changed expiry. Existing tokens stay as they are.", "新しいトークンの有効期限は、作成日からこの日数以内でなければなりません。有効期限を変更するときも同じです。既存のトークンは変わりません。";
    unused_tokens: "Unused tokens", "未使用のトークン";
    unused_days: "End after days without use", "未使用のまま終了するまでの日数";
    unused_days_hint: "A token that nobody uses for so many days stops working, existing ones too. Takes effect within a minute.", "この日数のあいだ使われなかったトークンは、既存のものも含めて使えなくなります。1分以内に反映されます。";
    days_rule: "Enter a number of days, at least 1, or leave the field empty.", "1以上の日数を入力するか、空欄にしてください。";
    lifetimes_saved: "The policies were saved.", "ポリシーを保存しました。";

    // Overview
    installed_in_14_days: "Installed in the last 14 days", "過去14日間のインストール";
    installed_in_14_days_hint: "Downloads a day, by ecosystem. Days are in UTC.", "エコシステム別の1日あたりのダウンロード数です。日付はUTCです。";
    show_as_table: "Show as table", "表で見る";
    day: "Day", "日付";
    npm: "npm", "npm";
    pypi: "PyPI", "PyPI";
    total: "Total", "合計";
    active_tokens: "Active tokens", "有効なトークン";
    what_happened_last: "What happened last", "最近の操作";
    see_all: "See all", "すべて見る";
    see_my_tokens: "Issue tokens of your own to install packages through Guard.", "Guardを通してパッケージをインストールするための、自分のトークンを発行できます。";
    nothing_installed: "Nothing was installed yet", "まだインストールはありません";
    nothing_installed_text: "Issue a token and set up a package manager with it. What it installs is shown here.", "トークンを発行して、パッケージマネージャーに設定してください。インストールした内容がここに表示されます。";

    // Tokens
    tokens_lead: "Organization user tokens let people install packages through Guard. The user identifier shows in the installation log who installed what.", "組織ユーザートークンを使うと、Guardを通してパッケージをインストールできます。誰が何をインストールしたかは、ユーザー識別子としてインストール履歴に記録されます。";
    issue_token: "Issue Token", "トークンを発行";
    issue: "Issue", "発行";
    user_identifier: "User Identifier", "ユーザー識別子";
    user_identifier_hint: "Says who the token is for, such as an email address, a user name or a device. 4–255 characters: letters, digits and . _ @ + -", "トークンの利用者を示す名前です（メールアドレス、ユーザー名、端末名など）。4〜255文字の英数字と . _ @ + - を使えます。";
    user_identifier_length: "Enter 4 to 255 characters.", "4〜255文字で入力してください。";
    user_identifier_characters: "Use only the letters A–Z and a–z, digits and . _ @ + -", "使えるのは、半角の英数字と . _ @ + - だけです。";
    starts_with: "User identifier starts with", "ユーザー識別子の先頭";
    token_state: "Tokens by state", "状態別のトークン";
    no_tokens: "No tokens yet", "トークンはまだありません";
    no_tokens_text: "Issue a token for a person or a device. They set up their package manager with it once.", "利用者や端末ごとにトークンを発行し、パッケージマネージャーに一度だけ設定します。";
    no_tokens_found: "No tokens found", "トークンが見つかりません";
    no_tokens_found_text: "No token in this state has a user identifier that starts like this. Upper and lower case differ.", "この状態のトークンには、入力した文字で始まるユーザー識別子がありません。大文字と小文字は区別されます。";
    token_issued: "Token issued", "トークンを発行しました";
    token: "Token", "トークン";
    setup: "Set up a package manager", "パッケージマネージャーの設定";
    setup_lead: "Run these lines where packages are installed. The token is part of them, so keep the configuration files out of version control.", "パッケージをインストールする環境で実行してください。トークンが含まれるため、設定ファイルはバージョン管理に含めないでください。";
    yarn_classic: "yarn 1 (classic): ignore npm's warning about the last line", "yarn 1（classic）：最後の行についてnpmが出す警告は無視して構いません";
    yarn_berry: "yarn 2 and later (berry): run in a project that uses it", "yarn 2以降（berry）：yarnを使うプロジェクトの中で実行します";
    bun: "bun: add to ~/.bunfig.toml", "bun：~/.bunfig.tomlに記述します";
    uv: "uv: add to your shell profile (.bashrc, .zshrc, …)", "uv：シェルの設定ファイル（.bashrc、.zshrcなど）に記述します";
    poetry: "poetry: run in each project", "poetry：プロジェクトごとに実行します";
    revoke_token: "Revoke token", "トークンの失効";
    revoke_token_text: "The token stops working immediately: commands that use it fail with a 401 error. Remove it from the package manager's configuration.", "トークンはただちに使えなくなり、使用中のコマンドは401エラーになります。パッケージマネージャーの設定からも削除してください。";
    token_revoked: "The token was revoked.", "トークンを失効させました。";
    revoke_all_of_a_person: "Revoke all of a person", "利用者のトークンをまとめて失効";
    revoke_by_user_lead: "Revokes every active token with exactly this user identifier, for example when somebody leaves.", "入力したユーザー識別子と完全に一致する有効なトークンを、すべて失効させます。退職時などに使います。";
    preview: "Preview", "対象を確認";
    exact_identifier_hint: "The whole user identifier. Upper and lower case differ.", "ユーザー識別子をすべて入力します。大文字と小文字は区別されます。";
    type_identifier: "Type the user identifier to confirm", "確認のため、ユーザー識別子を入力してください";
    identifier_differs: "This is not the user identifier above.", "上のユーザー識別子と一致しません。";
    revoke_all: "Revoke all", "すべて失効";
    count_changed: "The number of active tokens has changed since the preview. Nothing was revoked. Check again.", "確認後に有効なトークンの数が変わったため、失効は行われませんでした。もう一度確認してください。";
    see_installations: "Installations", "インストール履歴";
    list_not_allowed: "Your role issues tokens but does not list them.", "お使いのロールではトークンを発行できますが、一覧は表示できません。";

    // Installations
    installations_lead: "What was installed through Guard in the last 14 days, by whom and with which client.", "過去14日間にGuardを通してインストールされたパッケージと、その利用者・クライアントです。";
    package: "Package", "パッケージ";
    package_hint: "The exact name.", "正確な名前を入力します。";
    version: "Version", "バージョン";
    ecosystem: "Ecosystem", "エコシステム";
    file: "File", "ファイル";
    client: "Client", "クライアント";
    command: "Command", "コマンド";
    source_ip: "Source address", "接続元アドレス";
    workload: "Workload", "ワークロード";
    installations_need_guard: "Guard is not active for this organization, so there are no installations to show.", "この組織ではGuardが有効になっていないため、インストール履歴を表示できません。";
    day_invalid: "Enter a day, such as 2026-11-21.", "日付を入力してください（例：2026-11-21）。";
    no_installations: "No installations", "インストール履歴はありません";
    no_installations_text: "Set up a package manager with a token and install a package.", "トークンをパッケージマネージャーに設定して、パッケージをインストールしてください。";
    no_installations_found_text: "Nothing in the last 14 days matches these filters.", "過去14日間に、条件に一致するものはありません。";

    // API keys
    api_keys_lead: "API keys authenticate your tools and track usage per organization.", "APIキーはツールの認証に使います。使用状況は組織ごとに記録されます。";
    create_key: "Create Key", "キーを作成";
    create: "Create", "作成";
    api_key: "API key", "APIキー";
    key_name_hint: "Where the key is used, such as cursor-laptop, ci-pipeline or team-shared.", "どこで使うキーかがわかる名前です（例：cursor-laptop、ci-pipeline、team-shared）。";
    environment: "Environment", "環境";
    live: "Production", "本番";
    test: "Test / development", "テスト・開発";
    live_hint: "The key begins with tk_live_.", "キーはtk_live_で始まります。";
    test_hint: "The key begins with tk_test_.", "キーはtk_test_で始まります。";
    scopes: "Scopes", "スコープ";
    scopes_hint: "What the key can do. Assign the minimum scopes needed.", "キーでできることです。必要最小限のスコープだけを選んでください。";
    scope_shield_read: "Read scan results and detection history", "スキャン結果と検出履歴の読み取り";
    scope_shield_write: "Run scans, tokenize, and rehydrate", "スキャンの実行、トークン化、復元";
    scope_audit_read: "Read audit log entries", "監査ログの読み取り";
    scope_fleet_read: "View gateway fleet status", "ゲートウェイ群の状態の表示";
    scope_fleet_write: "Register and manage gateways", "ゲートウェイの登録と管理";
    scope_policy_read: "Read policy configurations", "ポリシー設定の読み取り";
    scope_policy_write: "Create and update policies", "ポリシーの作成と更新";
    scope_org_read: "Read organization settings", "組織設定の読み取り";
    scope_org_write: "Update organization settings, manage members", "組織設定の更新、メンバーの管理";
    scopes_missing: "Select at least one scope.", "スコープを1つ以上選択してください。";
    environment_missing: "Select an environment.", "環境を選択してください。";
    name_rule: "Enter 1 to 100 visible characters, without a space at either end.", "1〜100文字で入力してください。先頭と末尾の空白や、表示されない文字は使えません。";
    name_taken: "This name is already in use.", "この名前はすでに使われています。";
    plan_limit_reached: "All API keys of the plan are in use. Revoke one, or change the plan.", "プランのAPIキー数の上限に達しています。不要なキーを失効させるか、プランを変更してください。";
    no_api_keys: "No API keys yet", "APIキーはまだありません";
    no_api_keys_text: "Create a key for each tool, so that you can revoke one without touching the others.", "ツールごとにキーを作成すると、ほかのツールに影響を与えずに1つだけ失効できます。";
    no_api_keys_in_state: "No API keys in this state", "この状態のAPIキーはありません";
    no_api_keys_in_state_text: "Select another state above.", "上で別の状態を選択してください。";
    key_created: "API key created", "APIキーを作成しました";
    key_states: "API keys by state", "状態別のAPIキー";
    set_the_key: "Set the key", "キーの設定";
    revoke_key: "Revoke API key", "APIキーの失効";
    revoke_key_text: "Tools that use this key get 401 Unauthorized immediately. There is no undo.", "このキーを使うツールは、ただちに401エラーになります。この操作は取り消せません。";
    key_revoked: "The API key was revoked.", "APIキーを失効させました。";

    // Access tokens
    access_tokens_lead: "Organization access tokens are for servers and devices. They have a role and the projects they may access.", "組織アクセストークンは、サーバーや端末のためのトークンです。ロールと、アクセスできるプロジェクトを設定します。";
    create_access_token: "Create Access Token", "アクセストークンを作成";
    access_token: "Access token", "アクセストークン";
    access_token_name_hint: "What the token is for. Unique in the organization.", "トークンの用途です。組織内で重複しない名前にしてください。";
    role_readonly: "Read only", "読み取り専用";
    role_operator: "Operator", "オペレーター";
    role_manager: "Manager", "マネージャー";
    role_readonly_hint: "Reads only.", "読み取りだけができます。";
    role_operator_hint: "Everything that Read only may, and operation.", "読み取り専用の権限に加えて、運用操作ができます。";
    role_manager_hint: "Everything that Operator may, and management.", "オペレーターの権限に加えて、管理操作ができます。";
    project_access: "Project access", "プロジェクトへのアクセス";
    all_projects: "All projects", "すべてのプロジェクト";
    all_projects_hint: "Also those that are added later.", "後から追加されるプロジェクトも含みます。";
    selected_projects: "Selected projects", "選択したプロジェクト";
    selected_projects_hint: "Those selected below. If none is selected, the token may access no project.", "下で選択したプロジェクトだけです。1つも選択しないと、どのプロジェクトにもアクセスできません。";
    no_project: "None", "なし";
    is_active: "The token is active", "トークンを有効にする";
    is_active_hint: "A disabled token is refused until it is activated again.", "無効にしたトークンは、もう一度有効にするまで使えません。";
    no_access_tokens: "No access tokens yet", "アクセストークンはまだありません";
    no_access_tokens_text: "Create one for each server or device.", "サーバーや端末ごとに作成してください。";
    role_missing: "Select a role.", "ロールを選択してください。";
    unknown_project: "A project that you selected no longer exists. Select again.", "選択したプロジェクトの中に、すでに存在しないものがあります。選び直してください。";
    too_many_projects: "Select at most 50 projects, or all projects.", "選択できるプロジェクトは50個までです。それより多い場合は「すべてのプロジェクト」を選択してください。";
    too_many_access_tokens: "The organization has as many access tokens as it may have: 1,000. Delete one that is not needed.", "アクセストークン数の上限（1,000個）に達しています。不要なトークンを削除してください。";
    change_access_token: "Change access token", "アクセストークンの変更";
    access_token_created: "Access token created", "アクセストークンを作成しました";
    access_token_changed: "The access token was changed.", "アクセストークンを変更しました。";
    access_token_deleted: "The access token was deleted.", "アクセストークンを削除しました。";
    disable: "Disable", "無効化";
    enable: "Enable", "有効化";
    delete_access_token: "Delete access token", "アクセストークンの削除";
    delete_access_token_text: "The token is refused immediately and leaves the list. To stop it for a while, disable it instead.", "トークンはただちに使えなくなり、一覧からも消えます。一時的に止める場合は、無効化してください。";

    // Bots
    bots_lead: "Bots let scripts and CI jobs call the API. A bot's credential is its API key and its ID, joined by a colon.", "ボットは、スクリプトやCIからAPIを呼び出すための仕組みです。認証には、APIキーとボットのIDをコロンでつないだものを使います。";
    add_bot: "Add Bot", "ボットを追加";
    add: "Add", "追加";
    bot: "Bot", "ボット";
    bot_name_hint: "What the bot does, such as onboarding or leaver-workflow.", "ボットの役割がわかる名前です（例：onboarding、leaver-workflow）。";
    roles_hint: "Grant only what it needs.", "必要なロールだけを付与してください。";
    roles_missing: "Select at least one role.", "ロールを1つ以上選択してください。";
    role_owner: "Owner", "オーナー";
    role_owner_hint: "Everything in the organization.", "組織内のすべての操作ができます。";
    role_token_issuer: "Token issuer", "トークン発行者";
    role_token_issuer_hint: "Issues and probes tokens.", "トークンの発行と、有効性の確認ができます。";
    role_takumi_manager: "Guard manager", "Guardマネージャー";
    role_takumi_manager_hint: "Issues, lists and revokes tokens; reads installations and the audit log.", "トークンの発行・一覧表示・失効と、インストール履歴・監査ログの閲覧ができます。";
    role_api_key_manager: "API key manager", "APIキー管理者";
    role_api_key_manager_hint: "Creates, lists and revokes API keys.", "APIキーの作成・一覧表示・失効ができます。";
    role_token_introspector: "Token introspector", "トークン検証者";
    role_token_introspector_hint: "Introspects the organization's tokens.", "組織のトークンのイントロスペクション（有効性と権限の照会）ができます。";
    role_member: "Member", "メンバー";
    role_member_hint: "Issues and revokes one's own tokens under My tokens.", "マイトークンで、自分のトークンの発行と失効ができます。";
    role_scim: "Provisioning (SCIM)", "プロビジョニング（SCIM）";
    role_scim_hint: "Lets an identity provider add and remove people.", "IDプロバイダーが利用者を追加・削除できるようにします。";
    no_bots: "No bots yet", "ボットはまだありません";
    no_bots_text: "Add a bot to issue and revoke tokens from a script.", "ボットを追加すると、スクリプトからトークンの発行や失効ができます。";
    bot_added: "Bot added", "ボットを追加しました";
    bot_key_text: "Store the credential as a secret of your automation tool. It is the API key and the bot's ID in one.", "認証情報を自動化ツールのシークレットとして保存してください。APIキーとボットのIDを1つにしたものです。";
    bot_id: "Bot ID", "ボットのID";
    credential: "Credential (API key and bot ID)", "認証情報（APIキーとボットのID）";
    try_it: "Try it", "試してみる";
    rotate_key: "Rotate key", "キーを交換";
    bot_key_expired: "The API key has expired. Choose when the new one expires.", "APIキーの有効期限が切れています。新しいキーの有効期限を選択してください。";
    rotate_key_text: "Makes a new API key. The old one stays valid during the overlap, so that nothing stops while you replace it.", "新しいAPIキーを作成します。切り替えが終わるまで止まらないよう、重複期間中は古いキーも使えます。";
    overlap: "Overlap", "重複期間";
    overlap_none: "None: the old one ends now", "なし（古いものはすぐに使えなくなります）";
    overlap_1_hour: "1 hour", "1時間";
    overlap_24_hours: "24 hours", "24時間";
    overlap_7_days: "7 days", "7日間";
    overlap_first_use: "Until the new one is used, at most 7 days", "新しいものが使われるまで（最長7日間）";
    rotate: "Rotate", "交換";
    rotate_token: "Rotate token", "トークンを交換";
    rotate_text: "Makes a new one with the same rights and expiry. The old one stays valid during the overlap, so that nothing stops while you replace it. If you lose the new one before it is used, rotate the old one again.", "同じ権限と有効期限を持つ新しいものを作成します。切り替えが終わるまで止まらないよう、重複期間中は古いものも使えます。使う前に新しいものを失くしたときは、古いものをもう一度交換してください。";
    old_has_ended: "The old one no longer works.", "古いものは使えなくなりました。";
    token_rotated: "New token issued", "新しいトークンを発行しました";
    previous_key: "Previous API key", "以前のAPIキー";
    key_rotated: "New API key made", "新しいAPIキーを作成しました";
    change_roles: "Change roles", "ロールの変更";
    roles_changed: "The roles were changed.", "ロールを変更しました。";
    delete_bot: "Delete bot", "ボットの削除";
    delete_bot_text: "Its API keys stop working immediately. The tokens it issued stay valid.", "ボットのAPIキーはただちに使えなくなります。ボットが発行したトークンは引き続き有効です。";
    bot_deleted: "The bot was deleted.", "ボットを削除しました。";

    // Trusts of bots
    trusts: "CI trusts", "CIの信頼設定";
    trusts_lead: "CI jobs that a trust admits act as this bot without a stored secret: they exchange the identity token of their CI service for a token that ends soon.", "信頼設定に一致するCIのジョブは、シークレットを保存せずに、このボットとして動作できます。CIサービスのIDトークンを、短時間で失効するトークンと交換します。";
    no_trusts: "This bot trusts no CI jobs.", "このボットが信頼するCIのジョブはありません。";
    add_trust: "Add Trust", "信頼設定を追加";
    add_trust_lead: "A job must match everything that you enter here.", "ここに入力した条件のすべてに一致するジョブだけが対象になります。";
    trust: "Trust", "信頼設定";
    trust_presets: "CI services", "CIサービス";
    trust_preset_any: "Any issuer", "その他の発行者";
    issuer: "Issuer", "発行者";
    issuer_hint: "The URL that the job's token has as iss, to the last character.", "ジョブのトークンのissと完全に一致するURLです。";
    gitlab_issuer_hint: "The URL of your GitLab, without a slash at the end.", "お使いのGitLabのURLです。末尾のスラッシュは不要です。";
    audience: "Audience", "オーディエンス";
    audience_hint: "What the job asks its token for. It must be one that this service accepts.", "ジョブがトークンの発行時に指定する値です。このサービスが受け付けるものを入力してください。";
    claims: "Claims", "クレーム";
    claims_hint: "One a line, as name=value. A value may end in /* or :*. At least one must identify the owner exactly: repository_owner_id, repository_id, enterprise_id, project_id, namespace_id or sub.", "1行に1つ、name=valueの形式で入力します。値の末尾には /* または :* を使えます。repository_owner_id、repository_id、enterprise_id、project_id、namespace_id、subのうち、少なくとも1つを正確な値で指定してください。";
    claims_line_rule: "Enter each claim on a line of its own, as name=value.", "クレームは1行に1つ、name=valueの形式で入力してください。";
    subject_claim: "Claim that names the workload", "ワークロード名のクレーム";
    subject_claim_hint: "Its value is shown in the installation log and the audit log. Usually sub.", "このクレームの値が、インストール履歴と監査ログに表示されます。通常はsubです。";
    github_owner_id: "Owner ID", "オーナーID";
    github_owner_id_hint: "The number of the organization or user, which no one else can take: gh api users/NAME --jq .id", "組織またはユーザーの番号です。名前と違い、ほかの人が取得することはありません：gh api users/NAME --jq .id";
    github_repository_id: "Repository ID (optional)", "リポジトリID（任意）";
    github_repository_id_hint: "Empty: every repository of the owner. gh api repos/OWNER/NAME --jq .id", "空欄の場合は、オーナーのすべてのリポジトリが対象です。gh api repos/OWNER/NAME --jq .id";
    github_repository: "Repository name (optional)", "リポジトリ名（任意）";
    github_repository_hint: "Such as acme/widgets, or acme/*.", "例：acme/widgets、acme/*";
    git_ref: "Branch or tag (optional)", "ブランチまたはタグ（任意）";
    git_ref_hint: "Such as refs/heads/main, or refs/tags/*. Empty: all of them, and pull requests.", "例：refs/heads/main、refs/tags/*。空欄の場合は、プルリクエストを含むすべてが対象です。";
    git_ref_rule: "Enter a full name, which begins with refs/heads/ or refs/tags/.", "refs/heads/ または refs/tags/ で始まる完全な名前を入力してください。";
    ci_environment: "Environment (optional)", "環境（任意）";
    ci_environment_hint: "Only jobs that deploy to it, such as production.", "この環境にデプロイするジョブだけが対象になります（例：production）。";
    gitlab_namespace_id: "Group ID", "グループID";
    gitlab_namespace_id_hint: "The number of the group or user that the project is directly in. Empty if there is a project ID.", "プロジェクトが直接属するグループまたはユーザーの番号です。プロジェクトIDを入力する場合は、空欄でも構いません。";
    gitlab_project_id: "Project ID", "プロジェクトID";
    gitlab_project_id_hint: "Empty: every project of the group.", "空欄の場合は、グループのすべてのプロジェクトが対象です。";
    ci_id_rule: "Enter the number.", "番号を入力してください。";
    github_id_missing: "Enter the ID of the owner. A name can be taken by somebody else.", "オーナーIDを入力してください。名前だけでは、ほかの人に取得されるおそれがあります。";
    gitlab_id_missing: "Enter the ID of the group or of the project. A name can be taken by somebody else.", "グループIDまたはプロジェクトIDを入力してください。名前だけでは、ほかの人に取得されるおそれがあります。";
    trust_roles_hint: "What jobs may do with the API. Without a role they only install packages through Guard.", "ジョブがAPIでできることです。ロールを選ばない場合は、Guardを通したパッケージのインストールだけができます。";
    role_not_held: "The bot does not have a role that you selected. Select again.", "選択したロールの中に、ボットに付与されていないものがあります。選び直してください。";
    registries_only: "Registries only", "レジストリのみ";
    may_mint_longer: "Jobs may create what outlives their token", "トークンの期限を超えるものの作成を許可する";
    may_mint_longer_hint: "Without this, tokens and keys that a job creates must end with the job's own token.", "許可しない場合、ジョブが作成するトークンやキーの有効期限は、ジョブ自身のトークンの期限までになります。";
    added: "Added", "追加日時";
    trust_added: "The trust was added.", "信頼設定を追加しました。";
    trust_removed: "The trust was removed. Jobs that use it are signed out at their next request.", "信頼設定を削除しました。使用中のジョブは、次のリクエストから認証されなくなります。";
    remove_trust: "Remove trust", "信頼設定の削除";
    remove_trust_text: "Jobs that use it are signed out at their next request. To let them in again, add a new trust.", "使用中のジョブは、次のリクエストから認証されなくなります。再び許可するには、新しい信頼設定を追加してください。";
    end_tokens: "End all job tokens", "ジョブのトークンをすべて失効";
    end_tokens_text: "All jobs that act as this bot are signed out at their next request. Jobs that a trust admits can get new tokens at once.", "このボットとして動作しているすべてのジョブが、次のリクエストから認証されなくなります。信頼設定に一致するジョブは、すぐに新しいトークンを取得できます。";
    tokens_ended: "All job tokens of the bot were ended.", "ボットのジョブのトークンをすべて失効させました。";
    trust_sent_text: "Nothing was added a second time. To add another trust, open its form again.", "2つ目は追加されていません。別の信頼設定を追加する場合は、フォームを開き直してください。";
    trust_url_rule: "Enter a URL, such as https://ci.example.com.", "URLを入力してください（例：https://ci.example.com）。";
    trust_text_rule: "Enter 1 to 255 characters, without control characters.", "1〜255文字で入力してください。制御文字は使えません。";
    trust_name_rule: "A claim's name has 1 to 255 visible ASCII characters.", "クレームの名前には、1〜255文字の半角の英数字と記号だけを使えます。";
    trust_wildcard_rule: "Use * only at the end, after / or :.", "* は、末尾の / または : の直後でだけ使えます。";
    trust_exact_rule: "Enter the exact value, without *.", "* を使わずに、正確な値を入力してください。";
    trust_once_rule: "Enter this claim once.", "このクレームは1回だけ入力してください。";
    trust_few_rule: "Enter at most 10 claims.", "クレームは10個まで入力できます。";
    trust_identity_rule: "Enter the exact value of repository_owner_id, repository_id, enterprise_id, project_id, namespace_id or sub. Names can be taken by somebody else.", "repository_owner_id、repository_id、enterprise_id、project_id、namespace_id、subのいずれかを、正確な値で入力してください。名前だけでは、ほかの人に取得されるおそれがあります。";
    trust_id_beside_rule: "Enter repository_owner_id or repository_id beside it. A name can be taken by somebody else.", "repository_owner_idまたはrepository_idも入力してください。名前だけでは、ほかの人に取得されるおそれがあります。";

    // Members
    members_lead: "Members sign in to this console. What they may do depends on their roles.", "メンバーはこのコンソールにサインインできます。できる操作はロールで決まります。";
    invite_member: "Invite Member", "メンバーを招待";
    invite: "Invite", "招待";
    invite_hint: "The invitation is valid for 7 days, for whoever signs in with this address.", "招待は7日間有効です。このアドレスでサインインした人が承諾できます。";
    email_invalid: "Enter an email address, such as alice@example.com.", "メールアドレスを入力してください（例：alice@example.com）。";
    already_member: "This address already belongs to a member.", "このアドレスはすでにメンバーのものです。";
    member: "Member", "メンバー";
    joined: "Joined", "参加日時";
    member_invited: "The invitation was sent.", "招待を送信しました。";
    remove_member: "Remove member", "メンバーの削除";
    remove_member_text: "Ends the membership and the tokens issued under My tokens at the next request. Tokens that others issued for this person stay valid.", "次のリクエストから、メンバーの権限と、本人がマイトークンで発行したトークンが使えなくなります。ほかの人がこの利用者のために発行したトークンは有効なままです。";
    member_removed: "The member was removed.", "メンバーを削除しました。";
    sign_out_member: "Sign out everywhere", "すべてサインアウト";
    sign_out_member_text: "Ends all sessions of this person. They can sign in again.", "この利用者のセッションをすべて終了します。再度サインインすることはできます。";
    member_signed_out: "All sessions of the member were ended.", "メンバーのセッションをすべて終了しました。";
    last_owner: "This is the last owner. Give the role to somebody else first.", "最後のオーナーです。先に別のメンバーをオーナーにしてください。";
    withdraw_invitation: "Withdraw invitation", "招待を取り消す";
    withdraw_invitation_text: "The invitation can no longer be accepted.", "この招待は承諾できなくなります。";
    invitation_withdrawn: "The invitation was withdrawn.", "招待を取り消しました。";
    too_many_invitations: "Your organization has sent as many invitations as it may today. Try again tomorrow.", "この組織が1日に送信できる招待の上限に達しました。明日、もう一度お試しください。";
    you: "You", "あなた";

    // Projects
    projects_lead: "Access tokens name the projects they may access.", "アクセストークンには、アクセスできるプロジェクトを指定します。";
    add_project: "Add Project", "プロジェクトを追加";
    project: "Project", "プロジェクト";
    project_id: "Project ID", "プロジェクトID";
    project_id_hint: "1–64 characters: letters, digits and . _ -", "1〜64文字の英数字と . _ - を使えます。";
    project_id_rule: "Enter 1 to 64 characters: letters, digits and . _ -", "1〜64文字の半角英数字と . _ - で入力してください。";
    project_exists: "This project already exists.", "このプロジェクトはすでに存在します。";
    named_by: "Named by", "指定しているトークン";
    no_projects: "No projects yet", "プロジェクトはまだありません";
    no_projects_text: "Add a project, then create an access token that may access it.", "プロジェクトを追加してから、アクセスできるトークンを作成します。";
    project_added: "The project was added.", "プロジェクトを追加しました。";
    project_removed: "The project was removed.", "プロジェクトを削除しました。";
    remove_project: "Remove project", "プロジェクトの削除";
    remove_project_text: "Access tokens that name it may no longer access it.", "このプロジェクトを指定しているアクセストークンは、アクセスできなくなります。";

    // Audit log
    audit_log_lead: "Who changed what, and when. Entries are kept for 400 days.", "誰が、いつ、何を変更したかの記録です。400日間保存されます。";
    actor: "Actor", "実行者";
    action: "Action", "操作";
    target: "Target", "対象";
    outcome: "Outcome", "結果";
    done_outcome: "Done", "成功";
    refused: "Refused", "拒否";
    no_entries: "No entries", "記録はありません";
    no_entries_text: "Changes that you and others make are listed here.", "変更が行われると、ここに記録されます。";
    no_entries_found_text: "No entry matches these filters.", "条件に一致する記録はありません。";

    // My tokens
    my_tokens_lead: "Your own tokens for installing packages. They end when you leave the organization.", "パッケージのインストールに使う、あなた自身のトークンです。組織を離れると使えなくなります。";
    issued_as: "Your verified address is the user identifier.", "確認済みのメールアドレスがユーザー識別子になります。";
    no_my_tokens: "You have no tokens", "トークンはありません";
    no_my_tokens_text: "Issue one for each of your devices.", "端末ごとに発行してください。";
    address_is_no_identifier: "Your address cannot be a user identifier: it has a character other than letters, digits and . _ @ + -. Ask a manager to issue a token for you.", "メールアドレスに英数字と . _ @ + - 以外の文字が含まれているため、ユーザー識別子として使えません。管理者にトークンの発行を依頼してください。";

    // My account
    language: "Language", "言語";
    language_saved: "The language was saved.", "言語を保存しました。";
    sessions: "Sessions", "セッション";
    sessions_lead: "Where you are signed in. A session ends after 8 hours without use, and 24 hours after signing in.", "サインインしている場所です。8時間使わないとき、またはサインインから24時間で終了します。";
    signed_in: "Signed in", "サインイン日時";
    browser: "Browser", "ブラウザー";
    this_session: "This session", "このセッション";
    sign_out_everywhere: "Sign out everywhere", "すべての場所からサインアウト";
    sign_out_everywhere_text: "Ends all your sessions, this one included.", "このセッションを含む、すべてのセッションを終了します。";
    organizations: "Organizations", "組織";
    choose_organization: "Choose an organization", "組織を選択";

    // Sign-in
    sign_in: "Sign in", "サインイン";
    sign_in_lead: "You need an invitation to an organization.", "サインインするには、組織への招待が必要です。";
    sign_in_with_provider: "Sign in with your organization's account", "組織のアカウントでサインイン";
    sign_in_or: "or", "または";
    send_code: "Send code", "コードを送信";
    email_hint: "The address that was invited. We send a code to it.", "招待を受けたメールアドレスに、コードを送信します。";
    check_your_mail: "Check your mail", "メールを確認してください";
    code_sent: "If this address has an invitation or a membership, a code is on its way. It is valid for 10 minutes.", "このアドレスが招待されているか、メンバーの場合は、コードが届きます。有効期間は10分です。";
    code: "Code", "コード";
    code_hint: "16 characters. Dashes and case do not matter.", "16文字です。ハイフンの有無や、大文字と小文字の違いは問いません。";
    code_invalid: "The code is wrong, expired or used up. Request a new one.", "コードが正しくないか、期限切れか、使用済みです。新しいコードを送信してください。";
    send_another_code: "Send another code", "コードを再送信";
    demo_sign_in: "Sign in to the demo organization", "デモ組織にサインイン";
    demo_sign_in_text: "This link works once. It signs you in as the owner of the demo organization.", "このリンクは1回だけ使えます。デモ組織のオーナーとしてサインインします。";
    signed_out: "You are signed out.", "サインアウトしました。";
    sign_in_failed: "Signing in failed. Try again.", "サインインできませんでした。もう一度お試しください。";
    address_not_verified: "Your identity provider has not verified your email address.", "IDプロバイダーで、メールアドレスが確認されていません。";
    no_membership: "No organization", "所属する組織がありません";
    no_membership_text: "Nobody has invited this address yet, or the invitation has expired. Ask an owner of your organization to invite you.", "このアドレスへの招待がないか、招待の期限が切れています。組織のオーナーに招待を依頼してください。";
    invitation: "Invitation", "招待";
    invitations: "Invitations", "招待";
    invited_by: "Invited by", "招待者";
    the_operator: "the operator of this service", "このサービスの運用担当者";
    the_identity_provider: "your organization's identity provider", "組織のIDプロバイダー";
    organization: "Organization", "組織";
    accept: "Accept", "承諾";
    decline: "Not now", "後で";
    invitation_text: "After accepting, you can use the console with the roles below.", "承諾すると、次のロールでコンソールを使えるようになります。";

    // Problems
    pypi_in_14_days: "PyPI, 14 days", "PyPI（14日間）";
    npm_in_14_days: "npm, 14 days", "npm（14日間）";
    forbidden: "You may not open this page", "このページは表示できません";
    forbidden_text: "Your role does not allow it. Ask an owner of your organization.", "お使いのロールには権限がありません。組織のオーナーにお問い合わせください。";
    form_forbidden: "The form could not be accepted", "フォームを受け付けられませんでした";
    form_forbidden_text: "It came from another site, or from a session that has ended. Nothing was changed. Open the page again.", "別のサイトから送信されたか、セッションが終了しています。変更は行われていません。ページを開き直してください。";
    not_found: "Page not found", "ページが見つかりません";
    not_found_text: "It does not exist, or belongs to another organization.", "存在しないか、別の組織のページです。";
    already_sent: "This form was already sent", "このフォームは送信済みです";
    already_sent_text: "Nothing was made a second time. The secret was shown in the first answer and cannot be shown again. If you did not copy it, revoke what was made and start again.", "2つ目は作成されていません。シークレットは最初の応答で一度だけ表示され、再表示はできません。コピーしていない場合は、作成されたものを失効させて、やり直してください。";
    changed_meanwhile: "Somebody else changed this", "ほかの人が変更しました";
    changed_meanwhile_text: "Nothing was saved. Open the page again and check what it is now.", "保存されませんでした。ページを開き直して、現在の内容を確認してください。";
    link_used: "This link was already used", "このリンクは使用済みです";
    link_used_text: "Restart the service to get a new one.", "サービスを再起動すると、新しいリンクが表示されます。";
    method_not_allowed: "This page takes no such request", "このリクエストには対応していません";
    method_not_allowed_text: "Open the page from the navigation.", "メニューからページを開いてください。";
    too_many_requests: "Too many requests", "リクエストが多すぎます";
    unavailable: "The service is busy", "サービスが混み合っています";
    internal_error: "Something went wrong", "エラーが発生しました";
    internal_error_text: "It was logged. Try again, and tell your operator the request ID if it stays.", "エラーは記録されました。もう一度試しても直らない場合は、リクエストIDを運用担当者に伝えてください。";
    request_id: "Request ID", "リクエストID";
    to_overview: "Go to the overview", "概要へ移動";
    see_what_was_made: "See what was made", "作成されたものを見る";
}

messages_with_values! {
    expiry_at_most(days): "This organization allows at most {days} days.", "この組織では最長{days}日です。";
    expiry_too_late(days): "Choose a time within {days} days of the creation: this organization allows no longer lifetime.", "作成日から{days}日以内の期限を選択してください。この組織ではそれより長い有効期間は認められていません。";
    switch_organization(name): "Switch organization: {name}", "組織の切り替え：{name}";
    issue_token_for(identifier): "Token for {identifier}", "{identifier}のトークン";
    revoke_one(name): "Revoke {name}", "{name}を失効";
    only_of_token(id): "Only with the token {id}.", "トークン{id}の履歴だけを表示しています。";
    installations_of(name): "Installations of {name}", "{name}のインストール履歴";
    delete_one(name): "Delete {name}", "{name}を削除";
    remove_one(name): "Remove {name}", "{name}を削除";
    matched_tokens(count, identifier): "Active tokens of {identifier}: {count}", "{identifier}の有効なトークン：{count}件";
    revoked_tokens(count, identifier): "Revoked tokens of {identifier}: {count}", "{identifier}のトークンを{count}件失効させました。";
    remaining_tokens(count): "Still to be revoked: {count}. Send the form again.", "残り{count}件です。もう一度実行してください。";
    no_tokens_of(identifier): "{identifier} has no active tokens.", "{identifier}の有効なトークンはありません。";
    plan_usage(active, limit): "{active} of {limit} keys in use", "{limit}個中{active}個のキーを使用中";
    plan_usage_unlimited(active): "{active} keys in use, without limit", "{active}個のキーを使用中（上限なし）";
    plan(name): "{name} plan", "{name}プラン";
    too_many_trusts(limit): "The bot has as many trusts as it may have: {limit}. Remove one that is not needed.", "信頼設定の数の上限（{limit}個）に達しています。不要なものを削除してください。";
    workload_is(claim): "Workload: {claim}", "ワークロード：{claim}";
    remove_trust_in(issuer): "Remove the trust in {issuer}", "{issuer}の信頼設定を削除";
    claim_error(claim, error): "{claim}: {error}", "{claim}：{error}";
    entry_count(count): "{count} times", "{count}回";
    old_key_ends(at): "The old API key ends at {at}.", "古いAPIキーは{at}に使えなくなります。";
    old_key_ends_at_first_use(at): "The old API key ends when the new one is used, or at {at}.", "古いAPIキーは新しいキーが使われたとき、または{at}に使えなくなります。";
    old_ends(at): "The old one ends at {at}.", "古いものは{at}に使えなくなります。";
    old_ends_at_first_use(at): "The old one ends when the new one is used, or at {at}.", "古いものは新しいものが使われたとき、または{at}に使えなくなります。";
    rotated_to(id): "Rotated to {id}", "{id}に交換済み";
    replaces(id): "Replaces {id}", "{id}の後継";
    invitation_to(organization): "Join {organization}?", "{organization}に参加しますか？";
    invitation_ends(at): "Invitation ends {at}", "招待の期限：{at}";
    already_made(id): "It was made with the ID {id}.", "作成されたもののID：{id}";
    code_sent_to(address): "Sent to {address}", "送信先：{address}";
    tokens_naming(count): "{count} tokens", "{count}件";
    chart_summary(npm, pypi): "In 14 days: {npm} from npm, {pypi} from PyPI", "14日間の合計：npm {npm}件、PyPI {pypi}件";
    retry_after(seconds): "Try again in {seconds} seconds.", "{seconds}秒後にもう一度お試しください。";
}

impl Messages {
    /// What a scope controls.
    pub fn scope_sentence(&self, scope: Scope) -> &'static str {
        match scope {
            Scope::ShieldRead => self.scope_shield_read,
            Scope::ShieldWrite => self.scope_shield_write,
            Scope::AuditRead => self.scope_audit_read,
            Scope::FleetRead => self.scope_fleet_read,
            Scope::FleetWrite => self.scope_fleet_write,
            Scope::PolicyRead => self.scope_policy_read,
            Scope::PolicyWrite => self.scope_policy_write,
            Scope::OrgRead => self.scope_org_read,
            Scope::OrgWrite => self.scope_org_write,
        }
    }

    /// The name of a token's state.
    pub fn state(&self, state: TokenState) -> &'static str {
        match state {
            TokenState::Active => self.active,
            TokenState::Expired => self.expired,
            TokenState::Revoked => self.revoked,
        }
    }

    /// Why an organization gets no new tokens.
    pub fn refusal(&self, refusal: &ApiError) -> &'static str {
        match refusal {
            ApiError::Suspended => self.suspended,
            ApiError::PlanLimitReached => self.plan_limit_reached,
            _ => self.guard_is_off,
        }
    }

    /// Which rule of user identifiers this text breaks.
    pub fn user_identifier_rule(&self, text: &str) -> &'static str {
        if text.chars().all(UserIdentifier::allows) {
            self.user_identifier_length
        } else {
            self.user_identifier_characters
        }
    }

    /// What a part of a trust must be.
    pub fn trust_rule(&self, rule: TrustRule) -> &'static str {
        match rule {
            TrustRule::Url => self.trust_url_rule,
            TrustRule::Text => self.trust_text_rule,
            TrustRule::Name => self.trust_name_rule,
            TrustRule::Wildcard => self.trust_wildcard_rule,
            TrustRule::Exact => self.trust_exact_rule,
            TrustRule::Once => self.trust_once_rule,
            TrustRule::Few => self.trust_few_rule,
            TrustRule::Identity => self.trust_identity_rule,
            TrustRule::IdBeside => self.trust_id_beside_rule,
            TrustRule::Roles => self.role_not_held,
        }
    }

    /// The name of a role. An unknown role is shown as it is stored.
    pub fn role_label(&self, role: &OrUnknown<Role>) -> String {
        role.known().map_or(role.as_str(), |role| self.role(role).0).to_owned()
    }

    /// What a role allows; an empty text for an unknown one.
    pub fn role_hint(&self, role: &OrUnknown<Role>) -> &'static str {
        role.known().map_or("", |role| self.role(role).1)
    }

    /// The name of a role, and what it allows.
    pub fn role(&self, role: Role) -> (&'static str, &'static str) {
        match role {
            Role::Owner => (self.role_owner, self.role_owner_hint),
            Role::TokenIssuer => (self.role_token_issuer, self.role_token_issuer_hint),
            Role::Manager => (self.role_takumi_manager, self.role_takumi_manager_hint),
            Role::ApiKeyManager => (self.role_api_key_manager, self.role_api_key_manager_hint),
            Role::TokenIntrospector => (self.role_token_introspector, self.role_token_introspector_hint),
            Role::Member => (self.role_member, self.role_member_hint),
            Role::Scim => (self.role_scim, self.role_scim_hint),
        }
    }
}
